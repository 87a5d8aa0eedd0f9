"""Scripts run in Redis: on one server, behind Sentinel or in a cluster; many in one round trip."""
