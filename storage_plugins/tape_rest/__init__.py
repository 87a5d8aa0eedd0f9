"""Storage plug-in ``tape_rest``: files on the tapes of sites that speak the WLCG Tape REST API."""
