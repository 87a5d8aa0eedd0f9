"""Tests of nearline files."""
