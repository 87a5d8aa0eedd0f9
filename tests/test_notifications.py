"""Changes are heard of, gaps are noticed, and nothing is answered from memory that may be old."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from gateway import notifications, remembered
from gateway.config import Database as DatabaseSettings
from gateway.errors import GatewayError
from gateway.notifications import Notifications, Payload, listening
from gateway.remembered import Remembered
from tests.quotas.holders import until
from tests.quotas.support import faulty_proxy

KEY = "INSERT INTO api_keys (key_id, tenant_id, secret_sha256, label, subject, email, role, created_by) "
KEY += "VALUES ($1, $2, sha256('secret'), 'label', 'me', 'me@example.org', 'REGISTERED_USER', 'me')"


class Hearer:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Payload] | str] = []
        self.more = asyncio.Event()

    def changed(self, topic: str, payload: Payload) -> None:
        self.told.append((topic, payload))
        self.more.set()

    def missed(self) -> None:
        self.told.append("missed")
        self.more.set()

    async def next(self) -> tuple[str, Payload] | str:
        async with asyncio.timeout(10):
            while not self.told:
                self.more.clear()
                await self.more.wait()
        return self.told.pop(0)


@dataclasses.dataclass
class Told:
    notifications: Notifications
    hearer: Hearer
    connection: asyncpg.Connection[Any]
    tenant: int


@contextlib.asynccontextmanager
async def hearing(database: str, through: str | None = None) -> AsyncIterator[Told]:
    """A listener that is connected; changes are made past any proxy."""
    hearer = Hearer()
    connection = await asyncpg.connect(database)
    try:
        tenant = await connection.fetchval("INSERT INTO tenants (name) VALUES ('esa') RETURNING tenant_id")
        async with listening(DatabaseSettings.model_validate({"dsn": through or database})) as heard:
            before = heard.connected
            heard.subscribe(hearer)
            assert await hearer.next() == "missed"
            assert (before, heard.connected, heard.is_current) == (False, True, True)
            yield Told(heard, hearer, connection, tenant)
    finally:
        await connection.close()


async def test_what_changes_is_told_with_its_tenant_and_id(database: str) -> None:
    async with hearing(database) as told:
        await told.connection.execute(KEY, "aaaaaaaaaaaa", told.tenant)
        assert await told.hearer.next() == ("api_keys", Payload("esa", "aaaaaaaaaaaa"))
        await told.connection.execute("UPDATE api_keys SET revoked_at = now()")
        assert await told.hearer.next() == ("api_keys", Payload("esa", "aaaaaaaaaaaa"))
        await told.connection.execute(
            "INSERT INTO link_keys (key_id, tenant_id, email) VALUES ('bbbbbbbbbbbb', $1, 'me@example.org')",
            told.tenant,
        )
        await told.connection.execute("UPDATE link_keys SET revoked_at = now()")
        assert await told.hearer.next() == ("link_keys", Payload("esa", "bbbbbbbbbbbb"))
        await told.connection.execute("INSERT INTO revoked_links (link_id, tenant_id) VALUES ('b-c', $1)", told.tenant)
        assert await told.hearer.next() == ("revoked_links", Payload("esa", "b-c"))
        await told.connection.execute("UPDATE tenants SET name = 'nasa'")
        assert await told.hearer.next() == ("tenants", Payload("nasa", str(told.tenant)))


async def test_what_goes_with_its_tenant_is_told_too(database: str) -> None:
    async with hearing(database) as told:
        await told.connection.execute(KEY, "aaaaaaaaaaaa", told.tenant)
        await told.hearer.next()
        await told.connection.execute("DELETE FROM tenants")
        heard = {await told.hearer.next(), await told.hearer.next()}
        assert heard == {("tenants", Payload(None, str(told.tenant))), ("api_keys", Payload(None, "aaaaaaaaaaaa"))}


async def test_uses_of_a_key_and_what_is_rolled_back_are_not_told(database: str) -> None:
    async with hearing(database) as told:
        await told.connection.execute(KEY, "aaaaaaaaaaaa", told.tenant)
        await told.hearer.next()
        await told.connection.execute("UPDATE api_keys SET last_used_at = now()")
        with contextlib.suppress(ZeroDivisionError):
            async with told.connection.transaction():
                await told.connection.execute("UPDATE api_keys SET revoked_at = now()")
                raise ZeroDivisionError
        await told.connection.execute(KEY, "bbbbbbbbbbbb", told.tenant)
        assert await told.hearer.next() == ("api_keys", Payload("esa", "bbbbbbbbbbbb"))


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", '{"topic": "x"}', "1", "[" * 7000])
async def test_a_notification_that_cannot_be_read_may_have_meant_anything(database: str, text: str) -> None:
    async with hearing(database) as told:
        await told.connection.execute("SELECT pg_notify('gateway', $1)", text)
        assert await told.hearer.next() == "missed"


async def test_a_subscriber_that_fails_keeps_nothing_from_the_others(database: str) -> None:
    class Failing:
        def changed(self, topic: str, payload: Payload) -> None:
            raise RuntimeError

        def missed(self) -> None:
            raise RuntimeError

    async with hearing(database) as told:
        last = Hearer()
        told.notifications.subscribe(Failing())
        told.notifications.subscribe(last)
        await told.connection.execute("NOTIFY gateway, 'nonsense'")
        await told.connection.execute(KEY, "aaaaaaaaaaaa", told.tenant)
        assert await last.next() == "missed"
        assert await last.next() == ("api_keys", Payload("esa", "aaaaaaaaaaaa"))


async def test_after_a_gap_everything_may_have_changed(database: str) -> None:
    async with faulty_proxy(database) as (proxy, through), hearing(database, through) as told:
        since = told.notifications.since
        proxy.shut = True
        proxy.cut()
        await until(
            _is(lambda: not told.notifications.connected and not told.notifications.is_current),
            "the loss is noticed",
            seconds=2,
        )
        await told.connection.execute(KEY, "aaaaaaaaaaaa", told.tenant)
        assert told.hearer.told == []
        proxy.shut = False
        assert await told.hearer.next() == "missed"
        assert told.notifications.is_current
        assert told.notifications.since > since
        await told.connection.execute(KEY, "bbbbbbbbbbbb", told.tenant)
        assert await told.hearer.next() == ("api_keys", Payload("esa", "bbbbbbbbbbbb"))


async def test_a_connection_that_gives_no_sign_of_life_is_given_up(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "PING_SECONDS", 0.2)
    async with faulty_proxy(database) as (proxy, through), hearing(database, through) as told:
        proxy.deaf = True
        await until(_is(lambda: not told.notifications.connected), "the silence is noticed")
        proxy.deaf = False
        assert await told.hearer.next() == "missed"
        assert told.notifications.connected


async def test_whatever_ends_a_connection_another_one_follows(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Exception] = [asyncpg.ProtocolError("cut in a message"), AttributeError("a defect")]
    connecting = notifications._connection

    def failing(settings: DatabaseSettings) -> contextlib.AbstractAsyncContextManager[asyncpg.Connection[Any]]:
        if errors:
            raise errors.pop()
        return connecting(settings)

    monkeypatch.setattr(notifications, "_connection", failing)
    async with hearing(database) as told:
        assert not errors
        assert told.notifications.is_current


@contextlib.asynccontextmanager
async def swallowing_proxy(dsn: str) -> AsyncIterator[str]:
    """A way to PostgreSQL on which notifications are lost, and nothing else."""
    parts = urlsplit(dsn)

    async def forth(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while piece := await source.read(65536):
            target.write(piece)
        target.close()

    async def back(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while header := await source.readexactly(5):
            body = await source.readexactly(int.from_bytes(header[1:]) - 4)
            if header[:1] != b"A":
                target.write(header + body)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await asyncio.gather(forth(reader, upstream), back(upstream_reader, writer))
        finally:
            writer.close()
            upstream.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    netloc = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
    try:
        yield f"{parts._replace(netloc=netloc).geturl()}?sslmode=disable"
    finally:
        server.close()
        await server.wait_closed()


async def test_where_notifications_are_lost_on_the_way_nothing_is_current(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notifications, "PING_SECONDS", 0.1)
    hearer = Hearer()
    async with (
        swallowing_proxy(database) as through,
        listening(DatabaseSettings.model_validate({"dsn": through})) as heard,
    ):
        heard.subscribe(hearer)
        await until(_is(lambda: caplog.records), "it is noticed")
        await asyncio.sleep(0.5)
        assert (heard.connected, heard.is_current, hearer.told) == (False, False, [])
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "changes are not heard of, so nothing is answered from memory: TimeoutError()"
    ]


async def test_signs_of_life_keep_it_current_and_silence_beyond_the_bound_does_not(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "PING_SECONDS", 0.1)
    monkeypatch.setattr(notifications, "BOUND_SECONDS", 0.6)
    async with faulty_proxy(database) as (proxy, through), hearing(database, through) as told:
        await asyncio.sleep(1.0)
        assert told.notifications.is_current
        assert told.hearer.told == []
        monkeypatch.setattr(notifications, "PING_SECONDS", 3600.0)
        proxy.deaf = True
        await until(_is(lambda: not told.notifications.is_current), "it is not current any more")
        proxy.deaf = False


class Questions:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, asyncio.Future[str | None]]] = []

    def ask(self, key: str) -> asyncio.Future[str | None]:
        self.asked.append((key, asyncio.get_running_loop().create_future()))
        return self.asked[-1][1]

    async def answer(self, text: str | None) -> None:
        await asyncio.sleep(0)
        for _, future in self.asked:
            if not future.done():
                future.set_result(text)


class Memory:
    """A `Remembered`, its neighbours, and a clock that can be set."""

    def __init__(self) -> None:
        self.now = 100.0
        self.notifications = Notifications(lambda: self.now)
        self.notifications.connected = True
        self.notifications._alive = self.now
        self.questions = Questions()
        self.known = Remembered(self.questions.ask, self.notifications, lambda: self.now)

    async def get(self, key: str = "key", text: str | None = "answer") -> tuple[str | None, int]:
        """The answer, and how many questions it took."""
        before = len(self.questions.asked)
        answer, _ = await asyncio.gather(self.known.get(key), self.questions.answer(text))
        return answer, len(self.questions.asked) - before


async def test_an_answer_is_remembered_until_something_changes() -> None:
    memory = Memory()
    assert await memory.get() == ("answer", 1)
    assert await memory.get() == ("answer", 0)
    memory.known.forget("other")
    assert await memory.get() == ("answer", 0)
    memory.known.forget("key")
    assert await memory.get(text="another") == ("another", 1)
    memory.known.forget_all()
    assert await memory.get(text=None) == (None, 1)


async def test_an_answer_is_not_remembered_for_ever() -> None:
    memory = Memory()
    assert await memory.get() == ("answer", 1)
    memory.now += remembered.SECONDS
    memory.notifications._alive = memory.now
    assert await memory.get() == ("answer", 1)


async def test_that_there_is_nothing_is_remembered_briefly() -> None:
    memory = Memory()
    assert await memory.get(text=None) == (None, 1)
    assert await memory.get() == (None, 0)
    memory.known.forget("key")
    assert await memory.get(text=None) == (None, 1)
    memory.now += remembered.SECONDS_OF_NOTHING
    assert await memory.get() == ("answer", 1)


@pytest.mark.parametrize("gap", ["lost", "silent"])
async def test_nothing_is_answered_from_memory_while_changes_are_not_heard_of(gap: str) -> None:
    memory = Memory()
    assert await memory.get() == ("answer", 1)
    if gap == "lost":
        memory.notifications.connected = False
    else:
        memory.now += notifications.BOUND_SECONDS + 0.1
    for _ in range(3):
        assert await memory.get() == ("answer", 1)
    memory.notifications.connected, memory.notifications._alive = True, memory.now
    memory.known.forget_all()
    assert await memory.get() == ("answer", 1)
    assert await memory.get() == ("answer", 0)


@pytest.mark.parametrize("everything", [False, True])
async def test_an_answer_that_crosses_a_change_is_neither_kept_nor_shared(*, everything: bool) -> None:
    memory = Memory()
    first = asyncio.create_task(memory.known.get("key"))
    await asyncio.sleep(0)
    if everything:
        memory.known.forget_all()
    else:
        memory.known.forget("key")
    second = asyncio.create_task(memory.known.get("key"))
    await asyncio.sleep(0)
    assert [key for key, _ in memory.questions.asked] == ["key", "key"]
    memory.questions.asked[1][1].set_result("new")
    memory.questions.asked[0][1].set_result("old")
    assert (await first, await second) == ("old", "new")
    assert await memory.get() == ("new", 0)


async def test_many_who_ask_the_same_are_one_question_and_one_of_them_may_be_cancelled() -> None:
    memory = Memory()
    tasks = [asyncio.create_task(memory.known.get("key")) for _ in range(50)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    await memory.questions.answer("answer")
    assert await asyncio.gather(*tasks[1:]) == ["answer"] * 49
    assert tasks[0].cancelled()
    assert len(memory.questions.asked) == 1


async def test_what_fails_is_told_to_all_who_wait_and_asked_again() -> None:
    memory = Memory()
    tasks = [asyncio.create_task(memory.known.get("key")) for _ in range(2)]
    await asyncio.sleep(0)
    memory.questions.asked[0][1].set_exception(TimeoutError())
    for task in tasks:
        with pytest.raises(GatewayError) as caught:
            await task
        assert caught.value.status == 503
    assert await memory.get() == ("answer", 1)


async def test_memory_is_bounded_whatever_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST", 10)
    memory = Memory()
    for number in range(30):
        await memory.get(f"known {number}")
        await memory.get(f"unknown {number}", None)
    assert (len(memory.known._answers), len(memory.known._nothing), len(memory.known._under_way)) == (10, 10, 0)
    # The newest stay, and nothing that is not there drives out what is.
    assert await memory.get("known 29") == ("answer", 0)
    assert await memory.get("known 20") == ("answer", 0)
    assert await memory.get("known 19") == ("answer", 1)


def _is(condition: Any) -> Any:
    async def holds() -> bool:
        return bool(condition())

    return holds
