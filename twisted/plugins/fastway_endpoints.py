"""Makes the endpoint strings `fastway:...` known, for clients and for servers."""

from fastway.endpoint.strings import ClientParser, ServerParser

fastway_client = ClientParser()
fastway_server = ServerParser()
