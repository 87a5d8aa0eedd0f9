"""Throw-away PostgreSQL and Valkey for the demo and the tests."""
