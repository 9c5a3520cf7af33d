"""Makes `twistd fastway` known; loads nothing of the gateway."""

from twisted.application.service import ServiceMaker

fastway = ServiceMaker(
    "fastway",
    "fastway.service",
    "A game gateway: clients and game servers dial each other by id.",
    "fastway",
)
