"""The demonstration catalogue and its server."""
