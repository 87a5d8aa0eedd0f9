"""From an address and a caller to a file, in one statement: found, visible, licensed, allowed, and its copies."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus

from gateway.batching import Batches, batching
from gateway.catalog.model import Address, ByAsset, ByChecksum, Copy, File
from gateway.catalog.statements import LOCATE_BY_ASSET, LOCATE_BY_CHECKSUM, RULES
from gateway.config import Rights
from gateway.db import Database, is_of_server, no_answer
from gateway.errors import GatewayError, unavailable
from gateway.identity.principal import Principal
from gateway.quotas.limits import Limit, Rule, limits_of
from gateway.rights import licences
from gateway.rights.licences import Acceptance, Licence, NotAcceptedError
from gateway.rights.policies import Policies, Row, Verdict
from gateway.rights.predicate import caller_columns
from gateway.text import is_storable

Question = tuple[str | bool | None, ...]
"""What `gateway.catalog.statements.asked` has a row for."""
_AT_A_TIME = 50
"""Rows that are read before others have their turn."""
RoundTrip = Callable[[Sequence[Question]], Awaitable[Sequence[Row | None]]]
"""A row, or None, for each question."""


@dataclasses.dataclass(frozen=True, slots=True)
class LookUps:
    """How addresses of one kind are looked up."""

    shared: Batches[Question, Row | None]
    """In round trips with what others ask."""
    at_once: RoundTrip
    """Many in one round trip of their own."""


class Catalog:
    """Looks files up for callers. Made by `catalog`."""

    def __init__(
        self,
        database: Database,
        settings: Rights,
        policies: Policies,
        look_ups: Mapping[type[Address], LookUps],
    ) -> None:
        self._database = database
        self.settings = settings
        self.policies = policies
        """Whom rights with CUSTOM_ACCESS ask."""
        self._look_ups = look_ups

    async def locate(self, address: Address, principal: Principal) -> File:
        """The file at ``address``, if ``principal`` may have it. One round trip to PostgreSQL, shared with others.

        Raises:
            GatewayError: 404 no such product, collection, item, file or asset in the caller's tenant; 403 no right to
                it (404 by setting, where he may not even see it); 423 its licence is not accepted; 503 PostgreSQL, or
                the policy that decides, does not answer.
        """
        row = await self._look_up(address, principal)
        if row is None:
            raise _not_found(address)
        return decide(row, await self._verdict(row, principal), address, principal, self.settings)

    async def locate_all(
        self, addresses: Iterable[Address], principal: Principal
    ) -> dict[Address, File | GatewayError]:
        """The files at ``addresses`` in their order, each once: what `locate` would give or raise of each.

        One round trip to PostgreSQL for all of a kind.

        Raises:
            GatewayError: 503 PostgreSQL does not answer.
        """
        rows: dict[Address, Row | None] = dict.fromkeys(addresses)
        for kind, way in self._look_ups.items():
            asked = [one for one in rows if isinstance(one, kind) and all(map(is_storable, _key(one)))]
            if asked:
                caller = caller_columns(principal)
                rows.update(zip(asked, await way.at_once([(*caller, *_key(one)) for one in asked]), strict=True))
        verdicts: dict[Address, Verdict] = {}
        for private in (True, False):
            those = {one: row for one, row in rows.items() if row is not None and self._is_private(row) is private}
            judged = await self.policies.judge(principal, list(those.values()), files=private)
            verdicts.update(zip(those, judged, strict=True))
        found: dict[Address, File | GatewayError] = {}
        for number, (address, row) in enumerate(rows.items()):
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)
            try:
                if row is None:
                    raise _not_found(address)
                found[address] = decide(row, verdicts[address], address, principal, self.settings)
            except GatewayError as error:
                found[address] = error
        return found

    async def limits(self, principal: Principal) -> tuple[Limit, ...]:
        """What bounds the metered downloads of ``principal``, whatever the file.

        Raises:
            GatewayError: 404 his tenant does not exist; 503 PostgreSQL does not answer.
        """
        rows = await self._database.fetch(RULES, *([value] for value in caller_columns(principal)))
        if not rows:
            raise GatewayError(HTTPStatus.NOT_FOUND, f"There is no tenant {principal.tenant!r}.")
        return _limits(rows[0]["rules"], principal)

    async def accept_licence(self, address: Address, principal: Principal, client: str) -> None:
        """Record that ``principal`` accepts the licence of the dataset that the file at ``address`` lies in.

        Nothing is recorded for a file that does not exist or lies in a product that the caller may not see, nor when
        he showed no credential with which one can accept (see `licences.ACCEPT_BY_DOWNLOAD`).

        Args:
            address: of the file.
            principal: the caller.
            client: his IP address.

        Raises:
            GatewayError: 503 PostgreSQL does not answer.
        """
        if principal.is_anonymous or principal.credential not in licences.ACCEPT_BY_DOWNLOAD:
            return
        row = await self._look_up(address, principal)
        if row is None or row["file_id"] is None or row["licence_id"] is None:
            return
        if (await self._verdict(row, principal)).visible:
            licence = Licence(row["licence_id"], row["licence_version"], row["licence_url"])
            await licences.accept(self._database, licence, Acceptance.by(principal, client))

    async def _look_up(self, address: Address, principal: Principal) -> Row | None:
        key = _key(address)
        if not all(is_storable(part) for part in key):
            return None
        try:
            return await self._look_ups[type(address)].shared.ask((*caller_columns(principal), *key))
        except TimeoutError as error:
            raise no_answer() from error

    async def _verdict(self, row: Row, principal: Principal) -> Verdict:
        (verdict,) = await self.policies.judge(principal, [row], files=self._is_private(row))
        return verdict

    def _is_private(self, row: Row) -> bool:
        return row["data_type"] is not None and row["data_type"] not in self.settings.open_data_types


@contextlib.asynccontextmanager
async def catalog(
    database: Database, metered: Sequence[str], settings: Rights, policies: Policies
) -> AsyncIterator[Catalog]:
    """The catalogue in ``database``; downloads of files of the data types ``metered`` count in quotas."""
    by_checksum, by_asset = (_look_up(database, text, metered) for text in (LOCATE_BY_CHECKSUM, LOCATE_BY_ASSET))
    async with (
        batching(by_checksum, seconds=database.timeout, lanes=database.most, of_all=is_of_server) as checksums,
        batching(by_asset, seconds=database.timeout, lanes=database.most, of_all=is_of_server) as assets,
    ):
        yield Catalog(
            database,
            settings,
            policies,
            {ByChecksum: LookUps(checksums, by_checksum), ByAsset: LookUps(assets, by_asset)},
        )


def _look_up(database: Database, statement: str, metered: Sequence[str]) -> RoundTrip:
    async def look_up(questions: Sequence[Question]) -> Sequence[Row | None]:
        rows: list[Row | None] = [None] * len(questions)
        for row in await database.fetch(statement, *zip(*questions, strict=True), metered):
            rows[row["number"] - 1] = row
        return rows

    return look_up


def decide(row: Row, verdict: Verdict, address: Address, principal: Principal, settings: Rights) -> File:
    """Read the row of a look-up: the file, or the refusal. Denied unless everything says yes.

    Raises:
        GatewayError: 404, 403 or 423, in REGARDS' order of checks; 503 where the policy that matters cannot decide.
    """
    if not _yes(verdict.visible):
        if settings.hide_forbidden:
            raise _not_found(address)
        raise GatewayError(HTTPStatus.FORBIDDEN, "You have no right to this product.")
    if row["file_id"] is None:
        raise _not_found(address)
    is_open = row["data_type"] in settings.open_data_types
    if not is_open:
        if row["licence_url"] is not None and not (row["licence_accepted"] is True or licences.is_exempt(principal)):
            raise NotAcceptedError(row["licence_url"], row["collection_id"])
        if not _yes(verdict.downloadable):
            raise GatewayError(HTTPStatus.FORBIDDEN, "You have no right to the files of this product.")
    return File(
        file_id=row["file_id"],
        product=row["urn"],
        data_type=row["data_type"],
        name=row["file_name"],
        mime_type=row["mime_type"],
        size=row["size"],
        checksum=row["checksum"],
        checksum_algorithm=row["checksum_algorithm"],
        reference=row["reference"],
        visible_to_all=row["visible_to_all"],
        is_open=is_open,
        copies=read_copies(row["copies"]),
        is_metered=row["is_metered"],
        limits=_limits(row["rules"], principal) if row["is_metered"] else (),
        licence=row["licence_url"],
    )


def for_upkeep(row: Row, copies: tuple[Copy, ...] = ()) -> File:
    """A file as the gateway itself reads it, for nobody: it is open to nobody, and counts in no quota."""
    return File(
        file_id=row["file_id"],
        product=row["urn"],
        data_type=row["data_type"],
        name=row["file_name"],
        mime_type=row["mime_type"],
        size=row["size"],
        checksum=row["checksum"],
        checksum_algorithm=row["checksum_algorithm"],
        reference=row["reference"],
        copies=copies,
        visible_to_all=False,
        is_open=False,
        is_metered=False,
        limits=(),
    )


def _yes(decision: bool | None) -> bool:
    if decision is None:
        raise unavailable("What decides on this product does not answer at the moment.", code="PolicyUnavailable")
    return decision


def _key(address: Address) -> tuple[str, ...]:
    if isinstance(address, ByChecksum):
        return address.product, address.checksum
    return address.collection, address.item, address.asset


@functools.lru_cache(maxsize=4096)
def read_copies(text: str | None) -> tuple[Copy, ...]:
    """Copies as statements of the catalogue tell them: JSON, the columns of `Copy` in their order."""
    return tuple(
        Copy(*named, _instant(modified), version, verified, broken, _instant(restored), entry)  # type: ignore[call-arg]
        for *named, modified, version, verified, broken, restored, entry in json.loads(text or "[]")
    )


def _instant(text: str | None) -> datetime.datetime | None:
    return None if text is None else datetime.datetime.fromisoformat(text)


@functools.lru_cache(maxsize=4096)
def _limits(text: str | None, principal: Principal) -> tuple[Limit, ...]:
    return limits_of(_rules(text), principal)


@functools.lru_cache(maxsize=4096)
def _rules(text: str | None) -> tuple[Rule, ...]:
    return tuple(Rule(*columns) for columns in json.loads(text or "[]"))


def _not_found(address: Address) -> GatewayError:
    if isinstance(address, ByAsset):
        detail = f"There is no asset {address.asset!r} of item {address.item!r} in collection {address.collection!r}."
    else:
        detail = f"There is no file with checksum {address.checksum!r} in product {address.product!r}."
    return GatewayError(HTTPStatus.NOT_FOUND, detail)
