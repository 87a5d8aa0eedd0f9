"""The only code that writes file bytes to a connection."""
