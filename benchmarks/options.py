"""Options that benchmarks share."""

from __future__ import annotations

from collections.abc import Callable

import click

from gateway.demo.sizes import parse_size


def numbers(least: int, most: int) -> Callable[[click.Context, click.Parameter, str], list[int]]:
    """A callback for a list like ``1,32`` of numbers of clients, each from ``least`` to ``most``."""

    def parse(_: click.Context, __: click.Parameter, text: str) -> list[int]:
        try:
            found = [int(part) for part in text.split(",")]
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is no list of numbers like 1,32") from error
        if not all(least <= number <= most for number in found):
            raise click.BadParameter(f"numbers of clients go from {least} to {most}")
        return found

    return parse


def size(_: click.Context, __: click.Parameter, text: str) -> int:
    """A callback for the size of a file, like ``1GiB``."""
    try:
        octets = parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if octets == 0:
        raise click.BadParameter("an empty file cannot be measured")
    return octets
