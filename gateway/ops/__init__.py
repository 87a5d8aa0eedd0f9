"""Health and access log."""
