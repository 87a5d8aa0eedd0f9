"""Companion of a STAC API that exists already: its documents pass through, with links that lead to this gateway.

Whoever walks the catalogue through the gateway finds its download links in the assets; what is behind them goes by the
gateway's rights, licences and quotas. The catalogue stays where it is.
"""
