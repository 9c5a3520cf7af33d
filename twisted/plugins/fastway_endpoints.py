"""Makes the endpoint strings `fastway:...`, `snet:...`, `ws:...` and `wss:...` known, for clients
and for servers."""

from fastway.endpoint import strings as endpoint_strings
from fastway.snet import strings as snet_strings
from fastway.websocket import strings as websocket_strings

fastway_client = endpoint_strings.ClientParser()
fastway_server = endpoint_strings.ServerParser()
snet_client = snet_strings.ClientParser()
snet_server = snet_strings.ServerParser()
ws_client = websocket_strings.ClientParser()
wss_client = websocket_strings.SecureClientParser()
ws_server = websocket_strings.ServerParser()
wss_server = websocket_strings.SecureServerParser()
