"""Searching the catalogue as STAC clients do."""
