"""Storage plug-in ``command``: copies that an operator's own programs restore."""
