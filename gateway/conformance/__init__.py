"""A black-box suite of the STAC API Download extension, for any server that claims it."""
