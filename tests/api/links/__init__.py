"""Signed download links over real sockets."""
