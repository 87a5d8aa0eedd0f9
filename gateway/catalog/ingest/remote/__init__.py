"""Taking in what lies on an HTTP server: another STAC API, or a static catalogue.

The rules (`origin`, `stac_api`, `patience`; no I/O) and what asks the server (`client`) meet in `load`.
"""
