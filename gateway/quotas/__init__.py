"""Reservations and settlements of downloads, atomic in Redis."""
