"""What is ordered, and what becomes of it, as values; and the seams to those who know queries and storages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

ORDERABLE = ("RAWDATA", "QUICKLOOK_SD", "QUICKLOOK_MD", "QUICKLOOK_HD")
"""Data types of files that can be ordered."""
ID_BITS = 24
"""Lower bits of the id of a file of an order; the upper ones are the order's id."""


@dataclasses.dataclass(frozen=True, slots=True)
class FileFilters:
    """Which files of the selected products are wanted."""

    data_types: tuple[str, ...] = ()
    """Of `ORDERABLE`; none for all of them."""
    name_pattern: str | None = None
    """A regular expression that fits the whole name, checked by `gateway.orders.patterns`; None for any name."""


@dataclasses.dataclass(frozen=True, slots=True)
class DatasetSelection:
    """Products of one dataset."""

    dataset: str
    """URN."""
    query: str
    """REGARDS' openSearchRequest; empty for all products."""
    filters: FileFilters = FileFilters()


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """What an order is called, and where its user goes on."""

    label: str | None = None
    on_success_url: str | None = None
    correlation_id: str | None = None
    most_bytes: int | None = None
    """That its files may have in all."""


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """An SQL condition on a row ``p`` of ``products``; the statement has a row ``caller`` with a ``tenant_id``."""

    sql: str
    parameters: tuple[object, ...] = ()


Numbering = Callable[[int], Condition]
"""Gives a condition whose parameters are numbered from an argument on."""


class Translator(Protocol):
    """Makes a condition of a query."""

    async def __call__(self, query: str) -> Numbering:
        """The condition of ``query``.

        Raises:
            GatewayError: 422; it cannot be understood.
        """


def everything(_: int) -> Condition:
    """The condition of all products."""
    return Condition("true")


@dataclasses.dataclass(frozen=True, slots=True)
class Nearline:
    """A file of which no copy is online for good."""

    order_file_id: int
    file_id: int
    copies: Sequence[tuple[str, str]]
    """Storage and location of those that are nearline."""
    readable: bool = False
    """Whether it can be read all the same: it was restored."""


@dataclasses.dataclass(frozen=True, slots=True)
class Staged:
    """What has become of a nearline file."""

    state: Literal["AVAILABLE", "PENDING", "ERROR"]
    error: str | None = None
    """Why it cannot be had, in words for its user."""


class Stager(Protocol):
    """Has nearline files restored."""

    async def stage(self, files: Sequence[Nearline]) -> Mapping[int, Staged]:
        """What has become of each file, by ``order_file_id``; PENDING ones are asked for again later.

        It must do no harm to ask twice for the same file.
        """


class Sums(Protocol):
    """Knows the CRC-32 of files."""

    async def sum(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Have the CRC-32 of files of an order in the catalogue, as far as there is time for it.

        Args:
            ranges: first and last ids of files of an order.

        Raises:
            GatewayError: 503.
        """


class NoStager:
    """Where nothing is restored."""

    async def stage(self, files: Sequence[Nearline]) -> Mapping[int, Staged]:
        """Every file is in error, unless it was restored somewhere else."""
        available, error = Staged("AVAILABLE"), Staged("ERROR", "The file is not online.")
        return {one.order_file_id: available if one.readable else error for one in files}
