"""Queries of products: from Lucene text to a condition in SQL."""
