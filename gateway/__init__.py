"""Async streaming download gateway for archives of Earth-observation and science data."""

__version__ = "0.1.0"
