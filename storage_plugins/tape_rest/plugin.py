"""Files on tapes of dCache, EOS with CTA, and StoRM: restored by the WLCG Tape REST API, read by HTTP or WebDAV."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Self, cast
from urllib.parse import quote, unquote, urljoin

from gateway.storage import (
    ByteStream,
    CopyChangedError,
    CopyNotFoundError,
    CopyOfflineError,
    CopyUnavailableError,
    StageState,
    Stat,
    StorageError,
    ToStage,
)
from gateway.text import is_storable
from storage_plugins.http import copies as http_copies
from storage_plugins.http.client import HttpClient
from storage_plugins.http.message import parse_url
from storage_plugins.staging import RefusedError
from storage_plugins.tape_rest.api import GoneError, Locality, TapeApi
from storage_plugins.tape_rest.options import Options
from storage_plugins.tape_rest.token import Token

_SCHEME = re.compile("(https?|davs?)://", re.IGNORECASE)
_HTTP = {"davs": "https", "dav": "http"}
_SLACK = 3600
"""Seconds that a file is asked to stay on disk beyond what is wanted: these count from its arrival, seen later."""
_MOST_REDIRECTS = 3
_MOST_REQUESTS = 100_000
"""Restores of which the request is remembered."""
_ON_DISK = ("DISK", "DISK_AND_TAPE")


class _RedirectError(StorageError):
    """The site sends us elsewhere."""

    def __init__(self, location: str) -> None:
        super().__init__("redirected")
        self.location = location


@dataclasses.dataclass(slots=True)
class _Asked:
    """What was asked of the site for a restore, as long as this process remembers it."""

    requests: list[str]
    """Their ids, the last at the end."""
    until: datetime.datetime | None = None
    """When it leaves the disk; None: it has not come yet."""


class TapeRestStorage:
    """Files of a site. A location is the path of a file below ``url``.

    The ids of requests are kept in memory alone. Nothing depends on them but letting go ahead of time and the reason
    of a failure: where a file is the site tells by its path. After a restart a file that is still on tape counts as
    NEARLINE, and is asked for again, which the site takes for the same recall.

    Options: see `storage_plugins.tape_rest.options.Options`.
    """

    in_place = True

    def __init__(
        self,
        name: str,
        options: Options,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        """Connect to nobody yet.

        Raises:
            ConfigurationError: the ``ca_file`` cannot be used.
        """
        self.name = name
        self.stage_batch = options.batch
        self._options = options
        self._now = now
        self._token = Token(options.token, options.token_file)
        self._client = HttpClient(ca_file=options.ca_file)
        self._api = TapeApi(options, self._token)
        self._asked: dict[str, _Asked] = {}
        self._redirects = False
        """Whether the site is known to send readers elsewhere."""

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Self:
        """See `gateway.storage.Storage.from_options`."""
        return cls(name, Options.parse(options))

    def locate(self, href: str) -> str | None:
        """The path below ``url``, percent-decoded, of an href with ``http(s)://`` or ``dav(s)://``.

        Raises:
            ValueError: it is malformed, or has segments that are empty, ``.`` or ``..``.
        """
        found = _SCHEME.match(href)
        if found is None:
            return None
        scheme = found[1].lower()
        target = parse_url(f"{_HTTP.get(scheme, scheme)}://{href[found.end() :]}")
        root = self._options.target.path.rstrip("/") + "/"
        if not self._options.is_same_place(target) or not target.path.startswith(root):
            return None
        location = unquote(target.path[len(root) :], errors="strict")
        if target.query or not _is_path(location):
            raise ValueError("has a query, or a segment of its path is empty, '.' or '..'")
        return location

    async def stat(self, location: str) -> Stat:
        """See `gateway.storage.CanStat`. A file on tape has its size and version, too."""
        url = self._url(location)
        fields = await self._token.fields()
        for _ in range(_MOST_REDIRECTS + 1):
            try:
                return await http_copies.stat(
                    self._client, url, name=parse_url(url).shown, headers=fields, explain=_explain
                )
            except _RedirectError as redirect:
                url, fields = self._follow(url, redirect.location), {}
        raise CopyUnavailableError(f"{self._url(location)}: is redirected more than {_MOST_REDIRECTS} times")

    async def stream(self, location: str, start: int, stop: int, version: str | None) -> ByteStream:
        """See `gateway.storage.CanStream`. What cannot be read is looked for: it may be on tape.

        A site may send us to the server that has the bytes, which need not know the same entity-tag. Then the site is
        asked for the version before and after.
        """
        try:
            if not self._redirects:
                try:
                    return await self._stream(location, start, stop, version, follow=False)
                except _RedirectError:
                    self._redirects = True
            before = await self.stat(location)
            if version is not None and before.version != version:
                raise CopyChangedError(f"{location}: has the version {before.version!r} instead of {version!r}")
            found = await self._stream(location, start, stop, None, follow=True)
            try:
                if found.stat.size != before.size or await self.stat(location) != before:
                    raise CopyChangedError(f"{location}: was changed while it was asked for")
            except BaseException:
                found.close()
                raise
            cast("http_copies.HttpStream", found).stat = before
        except (CopyNotFoundError, CopyUnavailableError) as error:
            if await self._is_on_tape(location):
                raise CopyOfflineError(f"{location}: is on tape: {error}") from error
            raise
        return found

    async def stage(self, copies: Sequence[ToStage]) -> Mapping[str, StageState]:
        """See `gateway.storage.CanStage`. The site is asked once for a file that is on its way."""
        known = await self._localities(copies)
        wanted = [
            copy
            for copy in copies
            if (state := _state(known.get(copy.key))) is not None
            and state.state in ("ONLINE", "NEARLINE")
            and not _is_for_good(known[copy.key])
            and not (state.state == "NEARLINE" and copy.key in self._asked)
        ]
        refused = await self._request(wanted)
        states = {
            copy.key: self._online(copy, known[copy.key]) if state.state == "ONLINE" else _as_staging(state)
            for copy in copies
            if (state := _state(known.get(copy.key))) is not None
        }
        return states | {key: StageState("FAILED", error=error) for key, error in refused.items()}

    async def staged(self, copies: Sequence[ToStage]) -> Mapping[str, StageState]:
        """See `gateway.storage.CanStage`."""
        known = await self._localities(copies)
        states: dict[str, StageState] = {}
        waiting: dict[str, list[ToStage]] = {}
        for copy in copies:
            state = _state(known.get(copy.key))
            if state is None:
                continue
            if state.state == "ONLINE":
                state = self._online(copy, known[copy.key])
            elif state.state == "NEARLINE" and (asked := self._asked.get(copy.key)) is not None:
                asked.until = None
                waiting.setdefault(asked.requests[-1], []).append(copy)
            states[copy.key] = state
        if waiting:
            for found in await asyncio.gather(*(self._progress(*one) for one in waiting.items())):
                states.update(found)
        return states

    async def release(self, copies: Sequence[ToStage]) -> None:
        """See `gateway.storage.CanStage`. Files whose request is not known leave the disk when their time is over."""
        paths: dict[tuple[str, Literal["release", "cancel"]], list[str]] = {}
        for copy in copies:
            asked = self._asked.get(copy.key)
            for request in asked.requests if asked is not None else ():
                how: Literal["release", "cancel"] = "cancel" if asked is None or asked.until is None else "release"
                paths.setdefault((request, how), []).append(self._path(copy.location))
        for (request, how), those in paths.items():
            try:
                await self._api.let_go(request, those, how)
            except GoneError:
                continue
        for copy in copies:
            self._asked.pop(copy.key, None)

    async def close(self) -> None:
        """See `gateway.storage.Storage.close`."""
        await asyncio.gather(self._client.close(), self._api.close())

    def _online(self, copy: ToStage, found: Locality) -> StageState:
        """That it is on disk, and until when: the site does not tell it, but keeps what was asked of it."""
        if _is_for_good(found):
            return StageState("ONLINE")
        asked = self._asked.get(copy.key)
        until = (asked.until if asked is not None else None) or self._now() + datetime.timedelta(seconds=copy.seconds)
        if asked is not None:
            asked.until = until
        return StageState("ONLINE", until)

    async def _request(self, copies: Sequence[ToStage]) -> dict[str, str]:
        """Ask for copies; gives why it is refused for some, by their keys."""
        refused: dict[str, str] = {}
        parts = [copies] if copies else []
        while parts:
            part = parts.pop()
            try:
                request = await self._api.stage({self._path(copy.location): copy.seconds + _SLACK for copy in part})
            except RefusedError as error:
                if len(part) == 1:
                    refused[part[0].key] = str(error)
                else:  # One of them is enough for that.
                    parts += [part[: len(part) // 2], part[len(part) // 2 :]]
                continue
            for copy in part:
                asked = self._asked.pop(copy.key, None) or _Asked([])
                self._asked[copy.key] = _Asked([*asked.requests, request])
        while len(self._asked) > _MOST_REQUESTS:
            del self._asked[next(iter(self._asked))]
        return refused

    async def _progress(self, request: str, copies: Sequence[ToStage]) -> dict[str, StageState]:
        """How it stands with copies on tape that ``request`` asked for."""
        try:
            files = await self._api.progress(request)
        except GoneError:
            for copy in copies:
                self._asked.pop(copy.key, None)
            return {copy.key: StageState("NEARLINE") for copy in copies}
        states = {}
        for copy in copies:
            file = files.get(self._path(copy.location), {})
            if file.get("error") or file.get("state") in ("FAILED", "CANCELLED"):
                self._asked.pop(copy.key, None)
                error = file.get("error") or f"the site says {file['state']}"
                states[copy.key] = StageState("FAILED", error=error)
            else:
                states[copy.key] = StageState("STAGING")
        return states

    async def _localities(self, copies: Sequence[ToStage]) -> dict[str, Locality]:
        """By the keys of the copies."""
        found: dict[str, Locality] = {}
        paths: dict[str, str] = {}
        for copy in copies:
            try:
                paths[copy.key] = self._path(copy.location)
            except CopyUnavailableError as error:
                found[copy.key] = Locality(None, str(error))
        parts = [list(dict.fromkeys(paths.values()))] if paths else []
        told: dict[str, Locality] = {}
        while parts:
            part = parts.pop()
            try:
                told |= await self._api.archiveinfo(part)
            except RefusedError as error:
                if len(part) == 1:
                    told[part[0]] = Locality(None, str(error))
                else:  # One of them is enough for that.
                    parts += [part[: len(part) // 2], part[len(part) // 2 :]]
        return found | {key: told[path] for key, path in paths.items() if path in told}

    async def _is_on_tape(self, location: str) -> bool:
        path = self._path(location)
        try:
            found = (await self._api.archiveinfo([path])).get(path)
        except CopyUnavailableError:
            return False
        return found is not None and found.locality == "TAPE"

    async def _stream(self, location: str, start: int, stop: int, version: str | None, *, follow: bool) -> ByteStream:
        url = self._url(location)
        fields = await self._token.fields()
        for _ in range(_MOST_REDIRECTS + 1):
            shown = parse_url(url).shown
            try:
                return await http_copies.stream_range(
                    self._client, url, start, stop, version, name=shown, headers=fields, explain=_explain
                )
            except _RedirectError as redirect:
                if not follow:
                    raise
                # What is needed there is in the URL; the token is for this site's front alone.
                url, fields = self._follow(url, redirect.location), {}
        raise CopyUnavailableError(f"{self._url(location)}: is redirected more than {_MOST_REDIRECTS} times")

    def _follow(self, url: str, location: str) -> str:
        """Where a redirect leads.

        Raises:
            CopyUnavailableError: to somebody else.
        """
        try:
            led = urljoin(url, location)
            target = parse_url(led)
        except ValueError as error:
            raise CopyUnavailableError(f"{parse_url(url).shown}: is redirected to what {error}") from None
        if not self._options.trusts(target):
            raise CopyUnavailableError(
                f"{parse_url(url).shown}: is redirected to {target.scheme}://{target.authority}, none of its hosts"
            )
        return led

    def _path(self, location: str) -> str:
        """As the API names it."""
        if not _is_path(location):
            raise CopyUnavailableError(f"{location!r}: is no path below url")
        return f"{self._options.path}/{location}"

    def _url(self, location: str) -> str:
        if not _is_path(location):
            raise CopyUnavailableError(f"{location!r}: is no path below url")
        return f"{self._options.url}/{quote(location, safe='/~')}"


def _is_path(location: str) -> bool:
    return is_storable(location) and {"", ".", ".."}.isdisjoint(location.split("/"))


def _explain(status: int, headers: Mapping[str, str], body: bytes) -> StorageError | None:  # noqa: ARG001
    place = headers.get("Location")
    return _RedirectError(place) if status in (301, 302, 303, 307, 308) and place else None


def _state(found: Locality | None) -> StageState | None:
    """What a locality means; None if it says nothing."""
    if found is None:
        return None
    if found.locality in _ON_DISK:
        return StageState("ONLINE")
    if found.locality == "TAPE":
        return StageState("NEARLINE")
    if found.locality == "LOST":
        return StageState("LOST", error=found.error or "the site says LOST")
    return StageState("FAILED", error=found.error or f"the site says {found.locality or 'nothing'}")


def _is_for_good(found: Locality) -> bool:
    """Whether a file is on disk and on no tape, so that nobody takes it off the disk."""
    return found.locality == "DISK"


def _as_staging(state: StageState) -> StageState:
    """What was on tape is asked for now."""
    return StageState("STAGING") if state.state == "NEARLINE" else state
