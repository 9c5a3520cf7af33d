"""A chat in browsers; server.py is where it starts."""
