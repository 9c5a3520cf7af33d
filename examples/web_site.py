"""A twisted.web site behind a gateway, and a browser of it: neither knows of fastway.

python examples/web_site.py
"""

from __future__ import annotations

import warnings
from typing import Any

from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater, react
from twisted.web.client import URI, Agent, readBody
from twisted.web.iweb import IAgentEndpointFactory
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from fastway.endpoint import GatewayDialEndpoint
from fastway.errors import DialRefused
from fastway.testing import LocalGateway

SITE_ID = 80


class Page(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        return b"you asked for " + request.path


@implementer(IAgentEndpointFactory)
class ThroughGateway:
    """The host name of a URL is a server id."""

    def __init__(self, gateway: IStreamClientEndpoint) -> None:
        self.gateway = gateway

    def endpointForURI(self, uri: URI) -> GatewayDialEndpoint:
        return GatewayDialEndpoint(self.gateway, int(uri.host))


async def main(reactor: Any) -> None:
    async with LocalGateway(reactor, key="secret") as gateway:
        where = quoteStringArgument(gateway.server_string)
        site = serverFromString(reactor, f"fastway:{where}:id={SITE_ID}:key=secret")
        port = await site.listen(Site(Page()))
        agent = Agent.usingEndpointFactory(reactor, ThroughGateway(gateway.client))
        url = f"http://{SITE_ID}/index.html".encode()
        while True:
            try:
                response = await agent.request(b"GET", url)
                break
            except DialRefused:  # `listen` does not wait for the login
                await deferLater(reactor, 0.05)
        print(f"{response.code}: {(await readBody(response)).decode()}")
        await port.stopListening()


if __name__ == "__main__":
    # Twisted's readBody warns so over plain TCP too.
    warnings.filterwarnings("ignore", "Using readBody with a transport")
    react(main)
