"""Objects of S3."""
