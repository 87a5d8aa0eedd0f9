"""Changes of the catalogue that administrators push: the STAC API Transaction extension.

The rules of what may be pushed (`entities`; no I/O), what is there (`stored`) and storages and database meet in
`transactions`.
"""
