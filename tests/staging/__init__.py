"""Nearline files: states, restores, their cache."""
