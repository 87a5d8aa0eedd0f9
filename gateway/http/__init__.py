"""RFC 9110 as pure functions: no I/O, no framework."""
