"""twistd -ny fastway.tac: the gateway with the options of FASTWAY_* and of fastway.toml.

The file is taken from FASTWAY_CONFIG, or is fastway.toml in the working directory if that exists.
"""

import os

from twisted.application.service import Application

from fastway.service import Options, makeService

options = Options()
found = "FASTWAY_CONFIG" not in os.environ and os.path.exists("fastway.toml")
options.parseOptions(["--config", "fastway.toml"] if found else [])

application = Application("fastway")
makeService(options).setServiceParent(application)
