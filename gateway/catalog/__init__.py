"""Tenants, datasets, products, files and copies: looking them up and taking them in."""
