"""What administrators change: tenants, groups, rights, licences, keys; and the record of it."""
