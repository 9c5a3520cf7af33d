"""fastway: a game gateway on Twisted."""

__version__ = "0.1.0"
