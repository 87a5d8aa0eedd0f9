"""Nearline files: their states, restores, and the cache of restored copies."""
