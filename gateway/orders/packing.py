"""From the files of an order to the layout of its archive: what is in it, and what is not and why."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from http import HTTPStatus

from gateway.archive.layout import Layout, LayoutBuilder
from gateway.archive.names import Names
from gateway.archive.notice import NOTICE_NAME, notice
from gateway.catalog.model import Address, File
from gateway.db import Database
from gateway.downloads import Downloads
from gateway.errors import GatewayError
from gateway.identity.principal import Principal
from gateway.orders import contents
from gateway.orders.contents import Ordered
from gateway.orders.lifecycle import RULES, Action, FileState, RefusedError
from gateway.orders.reading import Order
from gateway.sources import Candidate, choose, expect
from gateway.storage import Stat

_AT_A_TIME = 50
"""Files of which storages are asked at the same time, and that are laid out before others have their turn."""
MOST_ASKED = 2000
"""Files of an order up to which storages are asked whether they still have each of them, so that its notice says what
is lost; of larger orders only those whose last download failed are asked for."""
_READY = frozenset({FileState.AVAILABLE, FileState.DOWNLOADED, FileState.DOWNLOAD_ERROR})


@dataclasses.dataclass(frozen=True, slots=True)
class Sourced:
    """A file that the caller may have now, and where its bytes are."""

    file: File
    candidates: Sequence[Candidate]
    expected: Stat


class Packer:
    """Lays archives of orders out, with the rights of who asks for them."""

    def __init__(self, downloads: Downloads, database: Database, *, folders: bool) -> None:
        """``folders``: whether the files of each product get a folder of their own."""
        self._downloads = downloads
        self._database = database
        self._folders = folders

    async def pack(self, order: Order, principal: Principal) -> Layout:
        """The archive of all files of ``order`` that ``principal`` may have now; the others are in its notice.

        Raises:
            GatewayError: there is none of them: the refusal of the first one; 503.
            RefusedError: none is ready.
        """
        names, builder, missing = Names(NOTICE_NAME), LayoutBuilder(), list[tuple[str, str]]()
        refusal: GatewayError | None = None
        async with aclosing(contents.pages(self._database, order.order_id)) as pages:
            async for page in pages:
                async for one, found in self._of_page(page, principal, ask=order.counts.files <= MOST_ASKED):
                    if isinstance(found, Sourced):
                        self._add(builder, names, one, found)
                        continue
                    if isinstance(found, GatewayError):
                        refusal = refusal or found
                    reason = found.detail if isinstance(found, GatewayError) else found
                    missing.append((one.name or f"file {one.order_file_id}", reason))
        return await asyncio.to_thread(_finish, builder, missing, order, self._downloads.clock(), refusal)

    async def sourced(self, file: File, tenant: str, *, ask: bool = False) -> Sourced:
        """Where the bytes of ``file`` are now; with ``ask`` its storages are asked, whatever is recorded.

        Raises:
            GatewayError: 404, 410, 502 or 503; no copy can give it.
        """
        candidates = choose(file, self._downloads.locations, tenant, resting=self._downloads.resting)
        expected, candidates = await expect(
            file,
            candidates,
            self._downloads.resting,
            ask=ask,
            storage_timeout=self._downloads.pace.storage_timeout,
        )
        return Sourced(file, candidates, expected)

    async def located(self, page: Sequence[Ordered], principal: Principal) -> Mapping[Address, File | GatewayError]:
        """The files of a page, if ``principal`` may have them now.

        Raises:
            GatewayError: 503.
        """
        return await self._downloads.catalog.locate_all([one.asset for one in page if one.asset is not None], principal)

    async def _of_page(
        self, page: Sequence[Ordered], principal: Principal, *, ask: bool
    ) -> AsyncIterator[tuple[Ordered, Sourced | GatewayError | str]]:
        ready = [one for one in page if one.state in _READY and one.asset is not None]
        located = await self.located(ready, principal)
        for first in range(0, len(page), _AT_A_TIME):
            some = page[first : first + _AT_A_TIME]
            tried = [self._tried(one, located, principal.tenant, ask=ask) for one in some]
            # As long as no storage has to be asked, tasks would only cost time.
            at_hand = not ask and all(
                one.state is not FileState.DOWNLOAD_ERROR and _is_recorded(located.get(one.asset))
                for one in some
                if one.asset is not None
            )
            found = [await one for one in tried] if at_hand else await asyncio.gather(*tried)
            for pair in zip(some, found, strict=True):
                yield pair
            await asyncio.sleep(0)

    async def _tried(
        self, one: Ordered, located: Mapping[Address, File | GatewayError], tenant: str, *, ask: bool
    ) -> Sourced | GatewayError | str:
        if one.state is FileState.PENDING:
            return "It is not ready yet"
        if one.state is FileState.ERROR:
            return one.error or "The file cannot be had"
        if one.asset is None:
            return "The catalogue has it no more"
        file = located[one.asset]
        if isinstance(file, GatewayError):
            return file
        failed = one.state is FileState.DOWNLOAD_ERROR
        ask = failed or (ask and not any(copy.storage in self._downloads.resting for copy in file.copies))
        try:
            return await self._expected(file, tenant, ask=ask, insist=failed)
        except GatewayError as error:
            return error

    async def _expected(self, file: File, tenant: str, *, ask: bool, insist: bool) -> Sourced:
        """As `sourced`. A storage that does not answer now is no reason to leave a file out, unless ``insist``.

        Its download then fails as long as that is so, and goes on afterwards: by what was recorded of it.
        """
        try:
            return await self.sourced(file, tenant, ask=ask)
        except GatewayError as error:
            if not ask or insist or error.status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
        return await self.sourced(file, tenant)

    def _add(self, builder: LayoutBuilder, names: Names, one: Ordered, found: Sourced) -> None:
        file, expected = found.file, found.expected
        folder = one.asset.item if self._folders and one.asset is not None else ""
        builder.add(
            names.place(file.name, folder),
            expected.size,
            one.crc32 if one.file_id == file.file_id else None,
            _modified(file, expected),
            identity=identity_of(file, expected),
            key=key_of(one.order_file_id, counts=file.is_metered),
        )


def identity_of(file: File, expected: Stat) -> str:
    """What changes whenever the bytes of ``file`` do."""
    if file.checksum is not None:
        return f"{file.checksum_algorithm}:{file.checksum.lower()}"
    return f"version:{expected.version}"


def _modified(file: File, expected: Stat) -> datetime.datetime | None:
    """When ``file`` last changed, whichever of its copies stands in now: else another one would be another archive."""
    recorded = [copy.modified for copy in file.copies if copy.modified is not None]
    return min(recorded, default=expected.modified) if file.checksum is not None else expected.modified


def key_of(order_file_id: int, *, counts: bool) -> int:
    """What an archive knows a file of an order by, and whether it counts in quotas."""
    return order_file_id << 1 | counts


def file_of(key: int) -> int:
    """The id of the file of an order that has ``key``."""
    return key >> 1


def does_count(key: int) -> bool:
    """Whether the file with ``key`` counts in quotas."""
    return bool(key & 1)


def _is_recorded(found: File | GatewayError | None) -> bool:
    if not isinstance(found, File):
        return True
    return found.checksum is not None and all(copy.recorded is not None for copy in found.copies)


def _finish(
    builder: LayoutBuilder,
    missing: Sequence[tuple[str, str]],
    order: Order,
    now: datetime.datetime,
    refusal: GatewayError | None,
) -> Layout:
    text = notice(missing)
    if text:
        # As old as the order, so that the same files always make the same archive.
        builder.add_text(NOTICE_NAME, text, order.created)
    layout = builder.finish(now)
    if len(layout) == bool(text):
        raise refusal or RefusedError(RULES[Action.DOWNLOAD].refusal)
    return layout
