"""The plug-in ``s3`` with a server that is as strict as Amazon's: archives, credentials that end, faults, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.storage import (
    ByteStream,
    CanFetch,
    CanStage,
    CopyChangedError,
    CopyNotFoundError,
    CopyOfflineError,
    CopyUnavailableError,
    OnSocket,
    StageState,
    StorageError,
    ToStage,
)
from storage_plugins.s3.archive import hours_of, request_of, state_of
from storage_plugins.s3.credentials import CredentialSource, RefreshedCredentials, StaticCredentials
from storage_plugins.s3.options import Options
from storage_plugins.s3.plugin import S3Storage
from storage_plugins.s3.sigv4 import Credentials
from tests.s3.strict import Pattern, StrictS3, strict_s3
from tests.s3.strict.messages import Request
from tests.storage_plugins.support import until

MANY = 1000 if os.environ.get("GATEWAY_TEST_FULL") else 200
"""Streams that are let go."""
KEYS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("+% ~/&=?#;:@\\\"'<>é/"), min_size=1).filter(
    lambda key: {".", ".."}.isdisjoint(key.split("/"))
)


def credentials_of(server: StrictS3, expires: float | None = None) -> Credentials:
    account = server.account
    return Credentials(account.access_key_id, account.secret_access_key, account.session_token, expires)


def storage_at(
    server: StrictS3,
    source: CredentialSource | None = None,
    now: Callable[[], float] = time.time,
    **options: object,
) -> S3Storage:
    account = server.account
    given: dict[str, object] = {"endpoint": account.endpoint, "region": account.region, "buckets": ["bucket"]}
    if account.ca_file:
        given["ca_file"] = str(account.ca_file)
    return S3Storage("cloud", Options.parse(given | options), source or StaticCredentials(credentials_of(server)), now)


@pytest.fixture
async def storage(strict: StrictS3) -> AsyncIterator[S3Storage]:
    storage = storage_at(strict)
    yield storage
    await storage.close()


async def read_all(stream: ByteStream) -> bytes:
    with contextlib.closing(stream):
        pieces = []
        while piece := await stream.read():
            pieces.append(piece)
        return b"".join(pieces)


async def refusal(ask: Awaitable[object], storage: S3Storage) -> StorageError:
    """The error of a call, which shows nothing secret."""
    with pytest.raises(StorageError) as caught:
        await ask
    shown: BaseException | None = caught.value
    while shown is not None:
        assert not re.search(r"X-Amz|[0-9a-f]{64}|secret", f"{shown}{shown!r}", re.IGNORECASE)
        shown = shown.__cause__ or shown.__context__
    return caught.value


def to_stage(location: str, seconds: float = 86400, key: str = "") -> ToStage:
    return ToStage(key or location, location, None, seconds)


async def stage(storage: S3Storage, location: str, seconds: float = 86400) -> str:
    """The state of one copy that is asked for."""
    copy = to_stage(location, seconds)
    return (await storage.stage([copy]))[copy.key].state


async def staged(storage: S3Storage, location: str) -> StageState:
    copy = to_stage(location)
    return (await storage.staged([copy]))[copy.key]


def asked(strict: StrictS3, method: str) -> list[Request]:
    return [request for request in strict.requests if request.method == method]


class TestArchive:
    def test_it_restores_in_place(self, strict: StrictS3, storage: S3Storage) -> None:
        assert isinstance(storage, CanStage)
        assert not isinstance(storage, CanFetch)
        assert storage.in_place

    async def test_from_cold_to_readable(self, strict: StrictS3, storage: S3Storage) -> None:
        etag = strict.store.put("bucket", "cold", b"content", storage_class="DEEP_ARCHIVE").etag
        stat = await storage.stat("bucket/cold")
        assert (stat.size, stat.version) == (7, etag.strip('"'))
        assert await staged(storage, "bucket/cold") == StageState("NEARLINE")
        for _ in range(2):
            error = await refusal(storage.stream("bucket/cold", 0, 7, stat.version), storage)
            assert isinstance(error, CopyOfflineError)
            assert str(error).startswith("s3://bucket/cold: S3 answers InvalidObjectState")
            assert await stage(storage, "bucket/cold", 3 * 86400) == "STAGING"
            assert await staged(storage, "bucket/cold") == StageState("STAGING")
        assert len(asked(strict, "POST")) == 1
        strict.store.finish_restoration("bucket", "cold")
        found = await staged(storage, "bucket/cold")
        assert found.state == "ONLINE"
        assert found.until is not None
        assert 3 <= (found.until - strict.clock()) / datetime.timedelta(days=1) <= 4
        assert await stage(storage, "bucket/cold", 3 * 86400) == "ONLINE"
        assert len(asked(strict, "POST")) == 1
        assert await read_all(await storage.stream("bucket/cold", 0, 7, stat.version)) == b"content"
        await storage.release([to_stage("bucket/cold")])
        assert await staged(storage, "bucket/cold") == found

    async def test_what_is_restored_is_kept_longer_but_never_shorter(
        self, strict: StrictS3, storage: S3Storage
    ) -> None:
        stored = strict.store.put("bucket", "cold", b"content", storage_class="GLACIER")
        await stage(storage, "bucket/cold", 5 * 86400)
        strict.store.finish_restoration("bucket", "cold")
        assert stored.restoration is not None
        first = stored.restoration.expires
        assert first is not None
        assert await stage(storage, "bucket/cold", 2 * 86400) == "ONLINE"
        assert stored.restoration.expires == first
        told = (await storage.stage([to_stage("bucket/cold", 9 * 86400)]))["bucket/cold"].until
        kept = stored.restoration.expires
        assert told is not None
        assert first < told <= kept

    async def test_it_asks_for_days_and_tier(self, strict: StrictS3) -> None:
        strict.store.put("bucket", "a cold/kéy+", b"content", storage_class="GLACIER")
        storage = storage_at(strict, restore_tier="Bulk", buckets={"moved": "bucket/a cold"})
        assert await stage(storage, "moved/kéy+", 11.1 * 86400) == "STAGING"
        (request,) = asked(strict, "POST")
        assert request.key == "a cold/kéy+"
        assert b"<Days>12</Days>" in request.body
        assert b"<Tier>Bulk</Tier>" in request.body
        await storage.close()

    async def test_it_tells_when_a_restore_is_ready_at_the_latest(self, strict: StrictS3) -> None:
        for tier, hours in (("Expedited", 12), ("Bulk", 48)):
            strict.store.put("bucket", "cold", b"content", storage_class="DEEP_ARCHIVE")
            storage = storage_at(strict, restore_tier=tier)
            state = (await storage.stage([to_stage("bucket/cold")]))["bucket/cold"]
            assert state.ready is not None
            assert abs(state.ready - strict.clock() - datetime.timedelta(hours=hours)).total_seconds() < 60
            again = (await storage.stage([to_stage("bucket/cold")]))["bucket/cold"]
            assert (again.state, again.ready) == ("STAGING", None)
            await storage.close()

    async def test_what_a_restore_takes_can_be_set(self, strict: StrictS3) -> None:
        strict.store.put("bucket", "cold", b"content", storage_class="DEEP_ARCHIVE")
        storage = storage_at(strict, restore_hours=2)
        state = (await storage.stage([to_stage("bucket/cold")]))["bucket/cold"]
        assert state.ready is not None
        assert abs(state.ready - strict.clock() - datetime.timedelta(hours=2)).total_seconds() < 60
        await storage.close()

    async def test_an_archive_of_intelligent_tiering_comes_back_for_good(
        self, strict: StrictS3, storage: S3Storage
    ) -> None:
        strict.store.put(
            "bucket", "smart", b"content", storage_class="INTELLIGENT_TIERING", archive_status="ARCHIVE_ACCESS"
        )
        assert await staged(storage, "bucket/smart") == StageState("NEARLINE")
        assert await stage(storage, "bucket/smart") == "STAGING"
        assert b"Days" not in asked(strict, "POST")[0].body
        assert await staged(storage, "bucket/smart") == StageState("STAGING")
        strict.store.finish_restoration("bucket", "smart")
        assert await staged(storage, "bucket/smart") == StageState("ONLINE")
        assert await stage(storage, "bucket/smart") == "ONLINE"

    @pytest.mark.parametrize("storage_class", ["STANDARD", "STANDARD_IA", "GLACIER_IR", "INTELLIGENT_TIERING"])
    async def test_what_is_not_archived_is_online(
        self, strict: StrictS3, storage: S3Storage, storage_class: str
    ) -> None:
        strict.store.put("bucket", "warm", b"content", storage_class=storage_class)
        assert await staged(storage, "bucket/warm") == StageState("ONLINE")
        assert await stage(storage, "bucket/warm") == "ONLINE"
        assert asked(strict, "POST") == []

    async def test_what_others_did_between_question_and_request_is_no_failure(
        self, strict: StrictS3, storage: S3Storage
    ) -> None:
        now, wanted = strict.clock(), {"Days": 1, "GlacierJobParameters": {"Tier": "Standard"}}
        strict.store.put("bucket", "cold", b"content", storage_class="GLACIER")
        assert await stage(storage, "bucket/cold") == "STAGING"
        assert storage._restorer is not None
        assert await storage._restorer.restore("bucket", "cold", wanted, now) == StageState("STAGING")
        strict.store.put("bucket", "cold", b"content")
        assert await storage._restorer.restore("bucket", "cold", wanted, now) == StageState("ONLINE")
        strict.store.put("bucket", "cold", b"content", storage_class="INTELLIGENT_TIERING")
        assert await storage._restorer.restore("bucket", "cold", wanted, now) == StageState("ONLINE")

    async def test_what_cannot_be_staged(self, strict: StrictS3, storage: S3Storage) -> None:
        state = (await storage.stage([to_stage("bucket/absent")]))["bucket/absent"]
        assert state == StageState("FAILED", error="s3://bucket/absent: S3 answers NoSuchBucket")
        strict.store.put("bucket", "cold", b"content", storage_class="GLACIER")
        for states in (
            await storage.stage([to_stage("bucket/absent")]),
            await storage.staged([to_stage("bucket/absent")]),
        ):
            assert states["bucket/absent"] == StageState("LOST", error="s3://bucket/absent: S3 answers NoSuchKey")
        strict.faults.slow_down(method="HEAD")
        error = await refusal(stage(storage, "bucket/cold"), storage)
        assert isinstance(error, CopyUnavailableError)
        strict.faults.slow_down(method="POST")
        error = await refusal(stage(storage, "bucket/cold"), storage)
        assert isinstance(error, CopyUnavailableError)
        assert str(error) == "s3://bucket/cold: S3 answers SlowDown"
        assert await stage(storage, "bucket/cold") == "STAGING"  # Only the answer had failed.
        strict.store.put("bucket", "cold", b"content", storage_class="GLACIER")
        strict.faults.reset_before_head(method="POST")
        assert isinstance(await refusal(stage(storage, "bucket/cold"), storage), CopyUnavailableError)
        async with strict.refusing():
            assert isinstance(await refusal(stage(storage, "bucket/cold"), storage), CopyUnavailableError)
            assert isinstance(await refusal(staged(storage, "bucket/cold"), storage), CopyUnavailableError)
        assert await stage(storage, "bucket/cold") == "STAGING"

    async def test_one_that_fails_says_nothing_of_others(self, strict: StrictS3, storage: S3Storage) -> None:
        for key in ("one", "two", "three"):
            strict.store.put("bucket", key, b"content", storage_class="GLACIER")
        strict.faults.slow_down(method="POST", key="two")
        keys = ("one", "two", "three", "absent")
        states = await storage.stage([to_stage(f"bucket/{key}", key=key) for key in keys] + [to_stage("else/where")])
        assert {key: state.state for key, state in states.items()} == {
            "one": "STAGING", "two": "FAILED", "three": "STAGING", "absent": "LOST", "else/where": "FAILED",
        }  # fmt: skip
        assert states["two"].retry

    async def test_one_that_is_refused_is_no_reason_to_leave_all_alone(
        self, strict: StrictS3, storage: S3Storage
    ) -> None:
        strict.store.put("bucket", "cold", b"content", storage_class="GLACIER")
        assert await stage(storage, "else/where") == "FAILED"
        wrong = storage_at(strict, StaticCredentials(dataclasses.replace(credentials_of(strict), access_key_id="old")))
        error = await refusal(stage(wrong, "bucket/cold"), wrong)
        assert str(error) == "s3://bucket/cold: S3 answers InvalidAccessKeyId"
        await wrong.close()

    async def test_a_server_that_says_nothing_is_given_up(
        self, strict: StrictS3, storage: S3Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        strict.store.put("bucket", "cold", b"content", storage_class="GLACIER")
        monkeypatch.setattr("storage_plugins.s3.restore._SECONDS", 0.05)
        strict.faults.stall_before_head(method="POST")
        error = await refusal(stage(storage, "bucket/cold"), storage)
        assert str(error) == "did not answer within 0.05 s"
        await storage.close()
        await until(lambda: strict.open_connections == 0)

    async def test_many_at_once_share_a_client_and_are_not_asked_all_together(
        self, strict: StrictS3, storage: S3Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(100):
            strict.store.put("bucket", f"cold/{number}", b"content", storage_class="GLACIER")
        running = most = 0
        ask = storage._stage

        async def counted(copy: ToStage) -> StageState:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                return await ask(copy)
            finally:
                running -= 1

        monkeypatch.setattr(storage, "_stage", counted)
        states = await storage.stage([to_stage(f"bucket/cold/{number}") for number in range(100)])
        assert {state.state for state in states.values()} == {"STAGING"}
        assert len(states) == len(asked(strict, "POST")) == 100
        assert most == 16
        await storage.close()
        await until(lambda: strict.open_connections == 0)

    async def test_buckets_may_be_in_the_host(self, strict: StrictS3, every_host_here: None) -> None:
        strict.store.put("bucket", "cold", b"content", storage_class="GLACIER")
        storage = storage_at(strict, endpoint=strict.account.host_endpoint, addressing="virtual")
        assert await stage(storage, "bucket/cold") == "STAGING"
        assert dict(strict.requests[-1].fields)["Host"].startswith("bucket.s3.localhost:")
        await storage.close()


class TestStateOfFields:
    NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)

    @pytest.mark.parametrize(
        ("restore", "state"),
        [
            ("", "NEARLINE"),
            ('ongoing-request="true"', "STAGING"),
            ('ongoing-request="false", expiry-date="Mon, 01 Jun 2026 12:00:01 GMT"', "ONLINE"),
            ('ongoing-request="false", expiry-date="Mon, 01 Jun 2026 12:00:00 GMT"', "NEARLINE"),
            ('ongoing-request="false", expiry-date="soon"', "NEARLINE"),
            ('ongoing-request="false"', "ONLINE"),
            ("nonsense", "NEARLINE"),
        ],
    )
    def test_of_an_archived_object(self, restore: str, state: str) -> None:
        fields = {"x-amz-storage-class": "GLACIER", "x-amz-restore": restore}
        assert state_of(fields, self.NOW).state == state
        assert state_of({"x-amz-restore": restore}, self.NOW) == StageState("ONLINE")

    @pytest.mark.parametrize(
        ("fields", "tier", "hours", "sent"),
        [
            ({"x-amz-storage-class": "GLACIER"}, "Expedited", 1 / 12, "Expedited"),
            ({"x-amz-storage-class": "GLACIER"}, "Standard", 5, "Standard"),
            ({"x-amz-storage-class": "DEEP_ARCHIVE"}, "Expedited", 12, "Standard"),
            ({"x-amz-archive-status": "ARCHIVE_ACCESS"}, "Bulk", 12, "Bulk"),
            ({"x-amz-archive-status": "DEEP_ARCHIVE_ACCESS"}, "Standard", 12, "Standard"),
        ],
    )
    def test_what_is_asked_for(self, fields: dict[str, str], tier: str, hours: float, sent: str) -> None:
        assert hours_of(fields, tier) == hours
        days = {} if "x-amz-archive-status" in fields else {"Days": 1}
        assert request_of(fields, 1, tier) == {"GlacierJobParameters": {"Tier": sent}, **days}


@pytest.fixture
def every_host_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every system resolves names below ``localhost``."""
    look_up = socket.getaddrinfo

    def here(host: Any, *args: Any, **kwargs: Any) -> Any:
        return look_up("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", here)


class Turns:
    """A chain that gives one after the other."""

    def __init__(self, *credentials: Credentials) -> None:
        self.left = list(credentials)

    async def fetch(self) -> Credentials | None:
        return self.left.pop(0) if self.left else None

    def close(self) -> None:
        """Nothing is held."""


class TestCredentials:
    async def test_a_session_token_is_part_of_each_request(self) -> None:
        async with strict_s3(session_token="to/ken+==") as server:
            server.store.put("bucket", "key", b"content", storage_class="GLACIER")
            storage = storage_at(server)
            assert (await storage.stat("bucket/key")).size == 7
            assert await stage(storage, "bucket/key") == "STAGING"
            signed = await storage.sign("bucket/key", method="HEAD", lifetime=60)
            assert (await server.account.send("HEAD", signed.url)).status == 200
            await storage.close()

    @pytest.mark.parametrize(
        ("call", "wrong", "told"),
        [
            ("stat", "session_token", "400"),
            ("stream", "session_token", "InvalidToken"),
            ("stage", "session_token", "400"),
            # HEAD has no body that tells an unknown key from a lack of rights.
            ("stream", "access_key_id", "InvalidAccessKeyId"),
            ("stage", "access_key_id", "InvalidAccessKeyId"),
        ],
    )
    async def test_those_that_the_server_does_not_know_any_more_are_fetched_anew(
        self, call: str, wrong: str, told: str
    ) -> None:
        async with strict_s3(session_token="new") as server:
            server.store.put("bucket", "key", b"content")
            good = credentials_of(server)
            if wrong == "access_key_id":
                bad = dataclasses.replace(good, access_key_id="old")
            else:
                bad = dataclasses.replace(good, session_token="old")
            now = [time.time()]
            source = RefreshedCredentials(Turns(bad, good), now=lambda: now[0])
            storage = storage_at(server, source)
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "stat": lambda: storage.stat("bucket/key"),
                "stream": lambda: storage.stream("bucket/key", 0, 7, None),
                "stage": lambda: stage(storage, "bucket/key"),
            }
            error = await refusal(calls[call](), storage)
            assert isinstance(error, CopyUnavailableError)
            assert told in str(error)
            now[0] += 6
            result = await calls[call]()
            if call == "stream":
                result.close()  # type: ignore[attr-defined]
            await storage.close()

    async def test_a_url_ends_before_the_credentials_do(self, strict: StrictS3) -> None:
        now = 1_800_000_000.75
        for left, lifetime, works in (
            (1000, 60, 60),
            (1000, 60.9, 60),
            (60.5 + 30, 60, 60),
            (45.5 + 30, 60, 45),
            (0.5 + 30, 60, 1),
            (10_000_000, 10_000_000, 604_800),
        ):
            source = RefreshedCredentials(Turns(credentials_of(strict, now + left)), now=lambda: now)
            storage = storage_at(strict, source, lambda: now)
            signed = await storage.sign("bucket/key", method="GET", lifetime=lifetime)
            assert f"&X-Amz-Expires={works}&" in signed.url
            assert signed.lifetime == works - 0.75
            await storage.close()

    async def test_without_any_there_is_nothing_to_sign_with(self, strict: StrictS3) -> None:
        storage = storage_at(strict, RefreshedCredentials(Turns()))
        for ask in (
            storage.stat("bucket/key"),
            storage.stream("bucket/key", 0, 1, None),
            storage.sign("bucket/key", method="GET", lifetime=60),
            stage(storage, "bucket/key"),
        ):
            error = await refusal(ask, storage)
            assert isinstance(error, CopyUnavailableError)
            assert str(error).startswith("no credentials to sign with")
        assert strict.requests == []
        await storage.close()

    async def test_clocks_that_differ_are_told(self) -> None:
        ahead = datetime.timedelta(seconds=310)
        async with strict_s3(clock=lambda: datetime.datetime.now(datetime.UTC) + ahead) as server:
            server.store.put("bucket", "key", b"content")
            storage = storage_at(server)
            error = await refusal(storage.stream("bucket/key", 0, 7, None), storage)
            assert str(error) == (
                "s3://bucket/key: S3 answers AccessDenied: the request had expired when it came; do the clocks differ?"
            )
            await storage.close()

    async def test_a_wrong_secret_and_a_wrong_region_are_told(self, strict: StrictS3) -> None:
        strict.store.put("bucket", "key", b"content")
        wrong = dataclasses.replace(credentials_of(strict), secret_access_key="wrong")
        for storage, code in (
            (storage_at(strict, StaticCredentials(wrong)), "SignatureDoesNotMatch"),
            (storage_at(strict, region="eu-west-9"), "AuthorizationQueryParametersError"),
        ):
            error = await refusal(storage.stream("bucket/key", 0, 7, None), storage)
            assert isinstance(error, CopyUnavailableError)
            assert str(error) == f"s3://bucket/key: S3 answers {code}"
            await storage.close()


@pytest.fixture
async def storages(strict: StrictS3) -> AsyncIterator[dict[str, S3Storage]]:
    """By their addressing."""
    endpoint = strict.account.host_endpoint
    storages = {"path": storage_at(strict), "virtual": storage_at(strict, endpoint=endpoint, addressing="virtual")}
    yield storages
    for storage in storages.values():
        await storage.close()


class TestSign:
    async def test_a_client_must_not_send_another_authorization_along(
        self, strict: StrictS3, storage: S3Storage
    ) -> None:
        strict.store.put("bucket", "key", b"content")
        signed = await storage.sign("bucket/key", method="GET", lifetime=60)
        assert (await strict.account.send("GET", signed.url)).body == b"content"
        both = await strict.account.send("GET", signed.url, headers={"Authorization": "Bearer x"})
        assert (both.status, both.code) == (400, "InvalidArgument")

    @pytest.mark.parametrize("addressing", ["path", "virtual"])
    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(key=KEYS, disposition=st.text('abc/;= é"%', min_size=1))
    async def test_any_key_is_found(
        self, strict: StrictS3, storages: dict[str, S3Storage], addressing: str, key: str, disposition: str
    ) -> None:
        strict.store.put("bucket", key, key.encode())
        signed = await storages[addressing].sign(f"bucket/{key}", method="GET", lifetime=60, disposition=disposition)
        got = await strict.account.send("GET", signed.url)
        assert (got.status, got.body) == (200, key.encode())


class TestRead:
    @pytest.mark.parametrize("tls", [False, True])
    async def test_ranges_by_tcp_and_by_tls(self, tls: bool) -> None:
        async with strict_s3(tls=tls) as server:
            content = Pattern(5_000_003)
            server.store.put("bucket", "key", content)
            storage = storage_at(server)
            stat = await storage.stat("bucket/key")
            for start, stop in ((0, content.size), (1, 2), (1_000_000, 4_000_001)):
                stream = await storage.stream("bucket/key", start, stop, stat.version)
                assert isinstance(stream, OnSocket) is not tls
                assert await read_all(stream) == content.read(start, stop - start)
            assert server.connections == 1
            await storage.close()

    async def test_a_server_with_another_certificate_is_not_talked_to(self, every_host_here: None) -> None:
        async with strict_s3(tls=True) as server:
            storage = storage_at(server, endpoint=server.account.endpoint.replace("127.0.0.1", "other.example"))
            error = await refusal(storage.stat("bucket/key"), storage)
            assert isinstance(error, CopyUnavailableError)
            assert "certificate" in str(error)
            await storage.close()

    async def test_buckets_may_be_in_the_host(self, every_host_here: None) -> None:
        async with strict_s3(tls=True) as server:
            server.store.put("bucket", "a key", b"content")
            storage = storage_at(server, endpoint=server.account.host_endpoint, addressing="virtual")
            assert await read_all(await storage.stream("bucket/a key", 0, 7, None)) == b"content"
            assert dict(server.requests[-1].fields)["Host"].startswith("bucket.s3.localhost:")
            await storage.close()

    async def test_refusals_are_told_by_their_code(self, strict: StrictS3, storage: S3Storage) -> None:
        strict.store.put("bucket", "key", b"content")
        strict.faults.slow_down()
        error = await refusal(storage.stream("bucket/key", 0, 7, None), storage)
        assert (type(error), str(error)) == (CopyUnavailableError, "s3://bucket/key: S3 answers SlowDown")
        strict.faults.internal_error(method="HEAD")
        error = await refusal(storage.stat("bucket/key"), storage)
        assert (type(error), str(error)) == (CopyUnavailableError, "s3://bucket/key: the server answers 500")
        error = await refusal(storage.stream("bucket/absent", 0, 7, None), storage)
        assert (type(error), str(error)) == (CopyNotFoundError, "s3://bucket/absent: S3 answers NoSuchKey")
        error = await refusal(storage.stat("bucket/absent"), storage)
        assert type(error) is CopyNotFoundError
        error = await refusal(storage.stream("bucket/key", 7, 8, None), storage)
        assert type(error) is CopyChangedError
        error = await refusal(storage.stream("bucket/key", 0, 7, "another"), storage)
        assert type(error) is CopyChangedError

    @pytest.mark.parametrize("call", ["stat", "stream", "stage"])
    async def test_who_does_not_wait_any_more_leaves_no_connection(
        self, strict: StrictS3, storage: S3Storage, call: str
    ) -> None:
        strict.store.put("bucket", "key", b"content")
        stalled = strict.faults.stall_before_head()
        calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "stat": lambda: storage.stat("bucket/key"),
            "stream": lambda: storage.stream("bucket/key", 0, 7, None),
            "stage": lambda: stage(storage, "bucket/key"),
        }
        waiting = asyncio.create_task(calls[call]())
        await stalled.reached()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: strict.open_connections == 0)

    async def test_many_streams_that_were_let_go_leave_no_connection(
        self, strict: StrictS3, storage: S3Storage
    ) -> None:
        size = 400_000
        strict.store.put("bucket", "key", Pattern(size))

        async def look_in(number: int) -> None:
            stream = await storage.stream("bucket/key", number, size, None)
            if number % 2:
                assert await stream.read()
            if number % 4 == 3:
                assert isinstance(stream, OnSocket)
                assert stream.socket().number > 0
            stream.close()

        for first in range(0, MANY, 50):
            await asyncio.gather(*(look_in(number) for number in range(first, first + 50)))
        await until(lambda: strict.open_connections == 0)
        assert strict.connections == MANY
        assert (await storage.stat("bucket/key")).size == size
        await storage.close()
        await until(lambda: strict.open_connections == 0)
