"""What administrators change: tenants, groups, rights, roles, licences, keys, links; and the record of it."""
