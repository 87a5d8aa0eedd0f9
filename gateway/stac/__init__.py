"""STAC API 1.0.0: the catalogue as clients of the SpatioTemporal Asset Catalog walk and search it."""
