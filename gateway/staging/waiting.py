"""Downloads of files that must be restored first: what becomes of them, and what they are told."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from aiohttp import web

from gateway.catalog.model import File
from gateway.config.staging import Staging
from gateway.db import Database
from gateway.errors import Family, GatewayError, render, unavailable
from gateway.families import family_of
from gateway.http.prefer import preferences
from gateway.identity.principal import Principal
from gateway.links import base_url, scope_query
from gateway.locations import Location
from gateway.ops.request_context import PROBLEM, REQUEST_ID
from gateway.rights.custom_roles import holds
from gateway.sources import NOT_ONLINE, Candidate, Hindrance, Nearline, assess, restorable
from gateway.staging.estimates import retry_after
from gateway.staging.model import DIRECT, RESTORING, FileState, Restore, State
from gateway.staging.requests import Requests, asking
from gateway.staging.stale import forget
from gateway.staging.states import of_restore, states
from gateway.storage import CanStage, CopyBrokenError, CopyChangedError, CopyNotFoundError, CopyOfflineError

STATE_FIELD = "File-State"
"""How it stands with a file: a structured field (RFC 9651), an item with parameters."""
LEAST_ROLE = "EXPLOIT"
"""REGARDS' role that may ask for restores where the setting ``open_to_users`` is off."""
_PREFERENCE = "respond-async"
"""RFC 7240 §4.1."""
_ELSEWHERE = frozenset({Hindrance.NO_STORAGE, Hindrance.TENANT, Hindrance.PLACE, Hindrance.UNREADABLE})


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """Has files restored that somebody wants to download."""

    settings: Staging
    database: Database
    requests: Requests
    locations: Mapping[str, Location]
    public_url: str | None
    prefix: str
    """Of the routes of restores."""

    async def may_ask(self, principal: Principal) -> bool:
        """Whether the caller may have files restored, and see how it stands with them, as far as his role tells.

        Raises:
            GatewayError: 503 PostgreSQL does not answer.
        """
        return self.settings.open_to_users or await holds(self.database, principal, LEAST_ROLE)

    def would_restore(self, file: File, tenant: str) -> bool:
        """Whether a download of ``file``, which is not online, would have it restored."""
        return self.settings.on_demand and bool(restorable(file.copies, self.locations, tenant))

    async def copy_to_restore(self, file: File, principal: Principal, refusal: GatewayError) -> Nearline | None:
        """The copy that is to be restored where a download got ``refusal``; None where that stands.

        A restored copy that turns out to be gone counts as such from now on.

        Raises:
            GatewayError: 503 PostgreSQL does not answer; or it is restored already, where this gateway cannot read it.
        """
        is_elsewhere = False
        if refusal.code == NOT_ONLINE and refusal.__cause__ is None:
            copies: Sequence[Nearline] = restorable(file.copies, self.locations, principal.tenant)
            if copies and self._has_broken(file, principal.tenant):
                await forget(self.database, file)
            else:
                is_elsewhere = self._is_elsewhere(file, principal.tenant)
        else:
            copies = self._gone(file, principal.tenant, refusal.__cause__)
            if copies:
                is_cold = isinstance(refusal.__cause__, CopyOfflineError)
                await forget(self.database, file, cold=copies[0].copy.copy_id if is_cold else None)
        if not copies or not self.settings.on_demand or not await self.may_ask(principal):
            return None
        if is_elsewhere:
            raise unavailable("No storage location of this gateway holds this file.", retry_after=300, code="NoStorage")
        return copies[0]

    def _has_broken(self, file: File, tenant: str) -> bool:
        """Whether a restored copy was found not to have its bytes: it is restored again, as one that is gone."""
        restored = (copy for copy in file.copies if copy.restored_until is not None)
        return any(assess(copy, self.locations, tenant) is Hindrance.BROKEN for copy in restored)

    def _is_elsewhere(self, file: File, tenant: str) -> bool:
        """Whether a copy is restored, and none here may give it: as long as it is there, no other is restored."""
        restored = (copy for copy in file.copies if copy.restored_until is not None)
        return any(assess(copy, self.locations, tenant) in _ELSEWHERE for copy in restored)

    def _gone(self, file: File, tenant: str, cause: BaseException | None) -> Sequence[Nearline]:
        """What can be restored of a file of which no copy could be read: all were restored ones, or are cold now."""
        found = [assess(copy, self.locations, tenant) for copy in file.copies]
        readable = [one for one in found if isinstance(one, Candidate)]
        if isinstance(cause, CopyOfflineError):
            # Of several nobody said which is cold.
            only = readable[0] if len(readable) == 1 else None
            if only is not None and only.copy.entry_id is None and isinstance(only.location.storage, CanStage):
                return [Nearline(only.copy, only.location, only.location.storage)]
            return restorable(file.copies, self.locations, tenant)
        if any(one.is_online for one in readable):
            return ()
        is_gone = isinstance(cause, CopyNotFoundError)
        if isinstance(cause, CopyChangedError | CopyBrokenError):
            # Where a copy is restored in place, wrong bytes are not mended by another restore.
            is_gone = any(one.copy.entry_id is not None for one in readable)
        return restorable(file.copies, self.locations, tenant) if is_gone else ()

    async def state(self, file: File) -> State:
        """How it stands with ``file``; asks PostgreSQL."""
        found = await states(self.database, self.locations, self.settings, [file.file_id])
        return found.get(file.file_id, State(file.file_id, FileState.LOST))

    async def begin(
        self, request: web.Request, file: File, principal: Principal, copy: Nearline, *, accepted: bool
    ) -> web.Response:
        """Have ``copy`` restored, and answer that the file comes later: 503, or 202 where that is wanted.

        Args:
            request: the GET.
            file: that the caller may have.
            principal: the caller.
            copy: of the file.
            accepted: whether 202 is what clients of this route expect.

        Raises:
            GatewayError: 503 ``Restoring``; 429 he waits for enough; 403 it is more than that; 503 it failed a moment
                ago.
        """
        ask = asking(principal, file.file_id, file.size, copy, hours=self.settings.hours, priority=DIRECT)
        restore = await self.requests.demand(ask)
        refusal = self._restoring(request, restore, principal)
        preferred = _PREFERENCE in preferences(request.headers.getall("Prefer", []))
        if not (preferred or accepted or self.settings.answer == 202):
            raise refusal
        request[PROBLEM] = refusal.code
        media_type, body = render(refusal, family_of(request), request_id=request[REQUEST_ID])
        fields = {"Cache-Control": "no-store", "Vary": "Authorization, Prefer", **refusal.headers}
        if preferred:
            fields["Preference-Applied"] = _PREFERENCE
        response = web.Response(status=HTTPStatus.ACCEPTED, body=body, headers=fields)
        response.content_type = "application/json" if media_type == "application/problem+json" else media_type
        return response

    def _restoring(self, request: web.Request, restore: Restore, principal: Principal) -> GatewayError:
        now = restore.now or restore.requested_at
        # What is done already, or just over, is to be asked for again at once.
        seconds = retry_after(restore.ready_at, now)
        state = of_restore(restore)
        base = f"{base_url(request, self.public_url)}{self.prefix}"
        href = f"{base}/restores/{restore.restore_id}{scope_query(principal)}"
        detail = f"The file is being restored from tape or cold storage; try again in {seconds} s."
        told = {
            "id": restore.restore_id,
            "state": state.state.value,
            "requestDate": _text(restore.requested_at),
            "estimatedDate": _text(restore.ready_at),
            "href": href,
        }
        body: dict[str, object] = {"restore": told}
        if family_of(request) is Family.REGARDS:
            body["messages"] = [detail]
        return GatewayError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            detail,
            code=RESTORING,
            headers={"Retry-After": str(seconds), "Link": f'<{href}>; rel="status"', **state_fields(state)},
            body=body,
            links=[{"rel": "status", "href": href}],
        )


def refused(family: Family, error: GatewayError) -> GatewayError:
    """``error``, in the status that the API family has for a file that is not online and nobody restores."""
    if error.code == NOT_ONLINE and family is Family.STAC:
        return dataclasses.replace(error, status=HTTPStatus.CONFLICT)
    return error


def state_fields(state: State) -> dict[str, str]:
    """The field that tells how it stands with a file."""
    times = {"since": state.since, "ready": state.ready, "until": state.until}
    told = "".join(f";{name}=@{int(time.timestamp())}" for name, time in times.items() if time is not None)
    return {STATE_FIELD: f"{state.state.value}{told}"}


def _text(instant: datetime.datetime | None) -> str | None:
    if instant is None:
        return None
    return instant.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
