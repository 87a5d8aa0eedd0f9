"""Mails of orders, by a gateway and a real mail server."""

from __future__ import annotations

import asyncio
import contextlib
import re
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import gateway.notices.mail
from gateway.notices import reminders
from gateway.orders import upkeep
from gateway.orders.tokens import OrderTokens
from tests.canaries import CANARIES
from tests.harness import SCIENTIST
from tests.notices.mailbox import Mailbox, free_port, parts_of
from tests.notices.support import (
    HOOK_SECRET,
    PASSWORD,
    PUBLIC_URL,
    SECRET,
    Post,
    mail_settings,
    post_config,
    running_post,
    sending_alone,
)
from tests.s3.strict.certificate import server_context

SOON = "UPDATE orders SET expires_at = now() + interval '1 hour', status_at = now() - interval '2 days'"


async def test_owners_are_told_of_their_orders_from_the_first_to_the_last(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    async with (
        Mailbox(free_port()).opened() as box,
        running_post(database, redis_url, tmp_path, mail=mail_settings(box.port, sender_name="Archive")) as post,
    ):
        order_id = await post.order(label='<b>"a" & b', onSuccessUrl="/portal?x=1")
        CANARIES.hide("token of an order", OrderTokens(SECRET.encode()).make(order_id, 0))
        created, finished = await box.has(2)
        assert box.recipients == [[SCIENTIST.email]] * 2
        assert created["Subject"] == f'Order {order_id} is confirmed: <b>"a" & b'
        assert finished["Subject"] == f'Order {order_id} is ready: <b>"a" & b'
        assert "Of 3 files 3 wait for you" in parts_of(finished)[0]
        for mail in (created, finished):
            text, html = parts_of(mail)
            assert f"{PUBLIC_URL}/portal?x=1" in text
            assert "<b>&lt;b&gt;&quot;a&quot; &amp; b</b>" in html
            assert str(mail["From"]) == "Archive <downloads@archive.example>"
        # The link of the mail lists the files of the order, which open without a credential.
        found = re.search(rf"{re.escape(PUBLIC_URL)}(/\S+orderToken=(\S+))", parts_of(created)[0])
        assert found is not None
        assert found[2] == OrderTokens(SECRET.encode()).make(order_id, 0)
        # It is the one answer that holds the token.
        async with post.gateway.session.get(post.gateway.url + found[1]) as answer:
            assert answer.status == 200
            urls = re.findall(rf">{re.escape(PUBLIC_URL)}(/[^<]+)<", await answer.text())
        assert len(urls) == 3
        response, body = await post.gateway.get(urls[0].replace("&amp;", "&"))
        assert (response.status, body) == (200, b"content 0")
        # What was fetched waits no more; of the others one is reminded, once for each end.
        async with asyncio.timeout(10):
            while not await post.database.fetch("SELECT FROM orders WHERE files_downloaded = 1"):
                await asyncio.sleep(0.02)
        await post.execute(SOON)
        assert await reminders.remind(post.database, 24) == 1
        assert await reminders.remind(post.database, 24) == 0
        reminder = (await box.has(3))[2]
        assert reminder["Subject"].startswith(f"Reminder: order {order_id} ends on 20")
        assert "2 of its 3 files still wait for you" in parts_of(reminder)[0]
        await post.execute("UPDATE orders SET expires_at = now()")
        await upkeep.run(post.database, post.gateway.config.orders)
        over = (await box.has(4))[3]
        assert over["Subject"].startswith(f"Order {order_id} is over")
        assert "2 of 3 files were ready and not downloaded" in parts_of(over)[0]
        assert "orderToken" not in over.as_string()
        await post.empty()
        assert len(set(box.identifiers)) == len(box.mails) == 4


async def test_nobody_is_reminded_of_what_he_has_just_heard_of_or_does_not_wait_for(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    async with (
        Mailbox(free_port()).opened() as box,
        running_post(database, redis_url, tmp_path, mail=mail_settings(box.port)) as post,
    ):
        await post.order()
        await box.has(2)
        await post.execute("UPDATE orders SET expires_at = now() + interval '1 hour'")
        assert await reminders.remind(post.database, 24) == 0
        await post.execute(SOON)
        await post.execute("UPDATE order_files SET state = 'DOWNLOADED'")
        assert await reminders.remind(post.database, 24) == 0
        await post.execute("UPDATE order_files SET state = 'AVAILABLE'")
        await post.execute("UPDATE orders SET expires_at = now()")
        assert await reminders.remind(post.database, 24) == 0


async def test_a_mail_server_that_is_down_loses_nothing_and_gets_nothing_twice(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    box = Mailbox(free_port())
    async with running_post(database, redis_url, tmp_path, mail=mail_settings(box.port)) as post:
        for _ in range(5):
            await post.order()
        waiting = await failed(post)
        tokens = [one for one in waiting if "orderToken" in str(one) or "secret" in str(one).lower()]
        assert tokens == []
        async with box.opened():
            await post.deliver()
        assert len(box.mails) == len(set(box.identifiers)) == 10


async def test_one_connection_serves_many_mails(database: str, redis_url: str, tmp_path: Path) -> None:
    box = Mailbox(free_port())
    async with running_post(database, redis_url, tmp_path, mail=mail_settings(box.port)) as post:
        order_id = await post.order()
        await post.gateway.catalogue.connection.execute(
            "INSERT INTO notices (channel, tenant, order_id, kind, body) SELECT 'mail', 'esa', order_id, 'done', "
            "to_jsonb(o) FROM orders o, generate_series(1, 50) WHERE order_id = $1",
            order_id,
        )
        async with box.opened():
            await post.deliver()
        assert len(box.mails) >= 50
        assert box.connections <= 10


async def test_a_reply_that_comes_late_is_not_taken_for_one_to_another_mail(
    database: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.notices.mail, "_SEND_SECONDS", 0.4)
    box = Mailbox(free_port())

    async def think(mail: EmailMessage) -> None:
        if len(box.mails) == 1:
            await asyncio.sleep(0.8)

    box.on_mail = think
    async with running_post(database, redis_url, tmp_path, mail=mail_settings(box.port)) as post:
        await post.order()
        await failed(post, 2)
        async with box.opened():
            await post.deliver()
        # Nobody told us in time that the first one was taken: it came again, as the same.
        assert len(box.mails) == 3
        assert len(set(box.identifiers)) == 2
        assert box.identifiers.count(box.identifiers[0]) == 2


async def test_what_is_rolled_back_is_not_told(database: str, redis_url: str, tmp_path: Path) -> None:
    settings = mail_settings(free_port())
    async with running_post(database, redis_url, tmp_path, mail=settings, orders={"workers": 0}) as post:
        await post.order()
        assert [row["kind"] for row in await post.left()] == ["created"]
        with contextlib.suppress(asyncpg.DivisionByZeroError):
            async with post.database.transaction() as connection:
                await connection.execute("UPDATE orders SET status = 'DONE'")
                assert await connection.fetchval("SELECT count(*) FROM notices") == 2
                await connection.execute("SELECT 1 / 0")
        assert [row["kind"] for row in await post.left()] == ["created"]


async def test_without_mail_nothing_is_spooled(database: str, redis_url: str, tmp_path: Path) -> None:
    async with running_post(database, redis_url, tmp_path) as post:
        await post.order()
        await post.execute("UPDATE orders SET status = 'EXPIRED'")
        await post.execute("DELETE FROM orders")
        assert await post.left() == []


async def test_who_has_no_mail_server_leaves_to_others_what_waits(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    box = Mailbox(free_port())
    async with running_post(database, redis_url, tmp_path, mail=mail_settings(box.port), orders={"workers": 0}) as post:
        await post.order()
    hook = {"name": "portal", "url": "http://127.0.0.1:1/", "secret": HOOK_SECRET, "tenants": ["*"]}
    for sections in ({}, {"webhooks": [hook]}):
        async with sending_alone(post_config(database, redis_url, tmp_path, **sections)) as work:
            before = await work.fetch("SELECT * FROM notices")
            assert [(row["kind"], row["tries"]) for row in before] == [("created", 0)]
            await work.fetch("""SELECT pg_notify('gateway', '{"topic": "notices", "tenant": null, "id": null}')""")
            await asyncio.sleep(0.3)
            assert await work.fetch("SELECT * FROM notices") == before
    async with box.opened(), sending_alone(post_config(database, redis_url, tmp_path, mail=mail_settings(box.port))):
        (mail,) = await box.has(1)
        assert "is confirmed" in mail["Subject"]


async def test_a_reply_that_quotes_the_mail_does_not_tell_the_token(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    box = Mailbox(free_port(), data="550 5.7.1 a link that nobody likes:", quotes=True)
    async with box.opened(), running_post(database, redis_url, tmp_path, mail=mail_settings(box.port)) as post:
        order_id = await post.order()
        CANARIES.hide("token of a refused order", OrderTokens(SECRET.encode()).make(order_id, 0))
        row = (await failed(post))[0]
        assert "metalink/download?orderToken=[order token] " in row["error"]


async def test_with_a_tenant_its_orders_go_untold(database: str, redis_url: str, tmp_path: Path) -> None:
    async with running_post(
        database, redis_url, tmp_path, mail=mail_settings(free_port()), orders={"workers": 0}
    ) as post:
        await post.order()
        await post.execute("DELETE FROM notices")
        await post.execute("DELETE FROM tenants")
        assert await post.left() == []


async def test_starttls_and_a_password(database: str, redis_url: str, tmp_path: Path) -> None:
    CANARIES.hide("password of the mail server", PASSWORD)
    context, authority = server_context(tmp_path)
    box = Mailbox(free_port(), login=("downloads", PASSWORD))
    settings = mail_settings(box.port, tls="starttls", user="downloads", password=PASSWORD, ca_file=str(authority))
    async with box.opened(context), running_post(database, redis_url, tmp_path, mail=settings) as post:
        await post.order()
        await box.has(2)
        await post.empty()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"password": "wrong"}, r"the server does not let us log in \(535\)"),
        ({"ca_file": None}, "(?i)certificate"),
    ],
)
async def test_nothing_is_sent_to_whom_one_cannot_trust_and_no_secret_is_told(
    database: str, redis_url: str, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    CANARIES.hide("password of the mail server", PASSWORD)
    context, authority = server_context(tmp_path)
    box = Mailbox(free_port(), login=("downloads", PASSWORD))
    settings = mail_settings(box.port, tls="starttls", user="downloads", password=PASSWORD, ca_file=str(authority))
    settings = {name: value for name, value in (settings | change).items() if value is not None}
    async with box.opened(context), running_post(database, redis_url, tmp_path, mail=settings) as post:
        await post.order()
        rows = await failed(post)
        assert box.mails == []
        assert re.search(reason, rows[0]["error"])
        assert PASSWORD not in str(rows)
        if "password" in change:
            # Nor is it shown again and again: neither by another way, nor for the next mail.
            for _ in range(10):
                await post.retry_now()
                await asyncio.sleep(0.05)
            assert 1 <= box.logins <= 2


async def test_a_server_without_starttls_gets_nothing(database: str, redis_url: str, tmp_path: Path) -> None:
    async with (
        Mailbox(free_port()).opened() as box,
        running_post(database, redis_url, tmp_path, mail=mail_settings(box.port, tls="starttls")) as post,
    ):
        await post.order()
        await failed(post)
        assert box.mails == []


async def test_mails_survive_that_their_sender_is_not_let(database: str, redis_url: str, tmp_path: Path) -> None:
    box = Mailbox(free_port(), sender="553 not yours")
    async with box.opened(), running_post(database, redis_url, tmp_path, mail=mail_settings(box.port)) as post:
        await post.order()
        rows = await failed(post, 2)
        assert [(row["error"], row["given_up_at"]) for row in rows] == [("553 not yours", None)] * 2
        box.sender = "250 OK"
        await post.deliver()
        assert len(set(box.identifiers)) == len(box.mails) == 2


@pytest.mark.parametrize("code", ["rcpt", "data"])
async def test_what_is_refused_for_good_is_given_up_and_what_is_for_now_is_not(
    database: str, redis_url: str, tmp_path: Path, code: str
) -> None:
    box = Mailbox(free_port())
    setattr(box, code, "451 busy")
    async with box.opened(), running_post(database, redis_url, tmp_path, mail=mail_settings(box.port)) as post:
        await post.order()
        rows = await failed(post)
        assert [(row["error"], row["given_up_at"]) for row in rows[:1]] == [("451 busy", None)]
        setattr(box, code, "550 nobody here")
        await post.retry_now()
        while not all(row["given_up_at"] for row in await post.left()):
            await failed(post, 2)
        assert {row["error"] for row in await post.left()} == {"550 nobody here"}
        assert box.mails == []


async def failed(post: Post, count: int = 1) -> list[dict[str, Any]]:
    """What failed, once so many did."""
    async with asyncio.timeout(15):
        while True:
            rows = await post.left()
            if sum(row["error"] is not None and row["lease"] is None for row in rows) >= count:
                return [row for row in rows if row["error"] is not None]
            await asyncio.sleep(0.02)
