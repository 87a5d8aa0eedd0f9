"""Who calls: tokens and scopes become a Principal."""
