"""Decisions of an Open Policy Agent, by its Data API over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.config import PolicyTable
from gateway.errors import ConfigurationError
from gateway.rights import opa
from gateway.rights.opa import OpenPolicyAgent
from gateway.rights.policies import open_policies
from gateway.rights.policy import Caller, PolicyError, Product, Question
from tests.harness import OUTSIDER, SCIENTIST, config_for, running_gateway
from tests.rights.support import describe, grant

PATH = "/v1/data/downloads/allow"
Answer = Callable[[dict[str, Any]], object]


class Agent:
    """Speaks the part of the API that is asked: ``POST /v1/data/…``."""

    def __init__(self) -> None:
        self.inputs: list[dict[str, Any]] = []
        self.answer: Answer = lambda _: {"result": True}
        self.together = 0
        self.most_together = 0
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert request.content_type == "application/json"
        body = await request.json()
        assert set(body) == {"input"}
        self.inputs.append(body["input"])
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        try:
            answer = self.answer(body["input"])
            if isinstance(answer, Awaitable):
                answer = await answer
        finally:
            self.together -= 1
        return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer)


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    made = Agent()
    app = web.Application(client_max_size=2**24)
    app.router.add_post(PATH, made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}{PATH}"
    yield made
    await runner.cleanup()


@contextlib.asynccontextmanager
async def asking(agent: Agent, **options: object) -> AsyncIterator[OpenPolicyAgent]:
    policy = OpenPolicyAgent.from_options("opa", {"url": agent.url, **options})
    yield policy
    await policy.close()


def question(name: str = "alpha", email: str | None = "x@example.org") -> Question:
    caller = Caller("esa", email, "EXPLOIT", frozenset({"b", "a"}))
    return Question("download", caller, Product("urn", "c", name, {"project": name}, 4.5, None), {"level": 3})


async def test_the_agent_is_told_who_asks_for_what_and_its_answer_counts(agent: Agent) -> None:
    agent.answer = lambda asked: {"result": asked["product"]["item"] == "alpha"}
    async with asking(agent) as policy:
        assert await policy.decide([question("alpha"), question("beta")]) == [True, False]
    assert min(agent.inputs, key=str) == {
        "action": "download",
        "caller": {"tenant": "esa", "email": "x@example.org", "role": "EXPLOIT", "groups": ["a", "b"]},
        "product": {
            "urn": "urn",
            "collection": "c",
            "item": "alpha",
            "properties": {"project": "alpha"},
            "quality_score": 4.5,
            "quality_level": None,
        },
        "options": {"level": 3},
    }


async def test_an_undefined_decision_is_no(agent: Agent) -> None:
    agent.answer = lambda _: {}
    async with asking(agent) as policy:
        assert await policy.decide([question()]) == [False]


BAD: list[object] = [
    {"result": "true"},
    {"result": 1},
    {"result": None},
    {"result": {"allow": True}},
    {"result": [True]},
    [True],
    True,
    "yes",
    None,
]


@pytest.mark.parametrize("answer", BAD, ids=str)
async def test_what_is_neither_true_nor_false_is_no_decision(agent: Agent, answer: object) -> None:
    agent.answer = lambda _: answer
    async with asking(agent) as policy:
        with pytest.raises(PolicyError):
            await policy.decide([question()])


RESPONSES: list[tuple[str, Callable[[], web.StreamResponse]]] = [
    ("500", lambda: web.json_response({"result": True}, status=500)),
    ("401", lambda: web.json_response({"result": True}, status=401)),
    ("201", lambda: web.json_response({"result": True}, status=201)),
    ("redirect", lambda: web.Response(status=307, headers={"Location": PATH})),
    ("no JSON", lambda: web.Response(body=b'{"result": true')),
    ("no UTF-8", lambda: web.Response(body=b"\xff\xff")),
    ("empty", web.Response),
    ("too long", lambda: web.Response(body=b'{"result": true' + b" " * 70_000 + b"}")),
]


@pytest.mark.parametrize("response", [made for _, made in RESPONSES], ids=[name for name, _ in RESPONSES])
async def test_an_answer_that_is_not_of_the_api_is_no_decision(
    agent: Agent, response: Callable[[], web.StreamResponse]
) -> None:
    agent.answer = lambda _: response()
    async with asking(agent) as policy:
        with pytest.raises(PolicyError):
            await policy.decide([question()])
    assert len(agent.inputs) == 1


async def test_an_agent_that_is_gone_is_no_decision(agent: Agent) -> None:
    policy = OpenPolicyAgent.from_options("opa", {"url": "http://127.0.0.1:9/v1/data/x"})
    with pytest.raises(PolicyError, match="gives no answer"):
        await policy.decide([question()])
    await policy.close()


async def test_decisions_are_kept_for_a_time_and_no_longer(agent: Agent) -> None:
    async with asking(agent) as policy:
        times = [0.0]
        policy._clock = lambda: times[0]
        for times[0], result, expected, asked in (
            (100.0, True, True, 1),
            (104.9, False, True, 1),
            (105.0, False, False, 2),
            (109.9, True, False, 2),
            (110.1, True, True, 3),
        ):
            agent.answer = lambda _, result=result: {"result": result}  # type: ignore[misc]
            assert await policy.decide([question()] * 3) == [expected] * 3
            assert len(agent.inputs) == asked


async def test_what_differs_in_anything_is_another_decision(agent: Agent) -> None:
    async with asking(agent) as policy:
        for _ in range(2):
            await policy.decide([question("alpha"), question("beta"), question(email=None)])
    assert len(agent.inputs) == 3


async def test_nothing_is_kept_where_that_is_not_wanted_nor_what_failed(agent: Agent) -> None:
    async with asking(agent, cache_seconds=0) as policy:
        for _ in range(3):
            await policy.decide([question()])
    assert len(agent.inputs) == 3
    async with asking(agent) as policy:
        agent.answer = lambda asked: {"result": True if asked["product"]["item"] == "alpha" else "?"}
        for _ in range(2):
            with pytest.raises(PolicyError):
                await policy.decide([question("alpha"), question("beta")])
    # What was decided beside a failure was kept.
    assert [asked["product"]["item"] for asked in agent.inputs[3:]].count("alpha") == 1
    assert [asked["product"]["item"] for asked in agent.inputs[3:]].count("beta") == 2


async def test_memory_is_bounded(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opa, "MOST_REMEMBERED", 10)
    async with asking(agent) as policy:
        await policy.decide([question(str(number)) for number in range(50)])
        assert len(policy._decisions) == 10


async def test_what_is_kept_is_small_however_large_the_question(agent: Agent) -> None:
    async with asking(agent) as policy:
        await policy.decide([question("x" * 100_000)])
        assert sum(map(sys.getsizeof, policy._decisions)) < 1000


async def test_secrets_in_the_address_of_an_agent_are_not_told() -> None:
    async def speak_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"nonsense\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(speak_nonsense, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    policy = OpenPolicyAgent.from_options("opa", {"url": f"http://me:hunter2@127.0.0.1:{port}/x?key=hunter2"})
    with pytest.raises(PolicyError, match="gives no answer") as raised:
        await policy.decide([question()])
    assert "hunter2" not in str(raised.value)
    await policy.close()
    server.close()
    await server.wait_closed()


async def test_a_batch_is_asked_over_a_bounded_number_of_connections(agent: Agent) -> None:
    async def slowly(_: dict[str, Any]) -> object:
        await asyncio.sleep(0.01)
        return {"result": True}

    agent.answer = slowly
    async with asking(agent) as policy:
        assert await policy.decide([question(str(number)) for number in range(100)]) == [True] * 100
    assert len(agent.inputs) == 100
    assert 1 < agent.most_together <= 16


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "url: must be"),
        ({"url": "127.0.0.1:8181"}, "url: must be"),
        ({"url": "ftp://127.0.0.1/x"}, "url: must be"),
        ({"url": "http://[::1"}, "url: must be"),
        ({"url": "http://me:hunter2@h:99999/x"}, "url: must be"),
        ({"url": "http://h/x", "cache_seconds": -1}, "cache_seconds: must be"),
        ({"url": "http://h/x", "cache_seconds": 61}, "cache_seconds: must be"),
        ({"url": "http://h/x", "cache_seconds": True}, "cache_seconds: must be"),
        ({"url": "http://h/x", "cache_seconds": "5"}, "cache_seconds: must be"),
        ({"url": "http://h/x", "cache": 5}, "cache: no such option"),
    ],
)
async def test_options_are_checked_when_the_gateway_starts(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        async with open_policies([PolicyTable(name="mine", plugin="opa", **options)]):
            pass


async def test_downloads_that_an_agent_decides_on(agent: Agent, database: str, redis_url: str, tmp_path: Path) -> None:
    table = {"name": "rules", "plugin": "opa", "url": agent.url, "cache_seconds": 0, "timeout": 0.5}
    async with running_gateway(config_for(database, redis_url, tmp_path, policies=[table]), tmp_path) as gateway:
        made = gateway.catalogue
        entries = [await made.file(b"data", collection="ruled", item=name) for name in ("alpha", "beta")]
        for entry in entries:
            await describe(made, entry, project=entry.item)
        await grant(made, "ruled", await made.group("everyone", public=True), "CUSTOM_ACCESS", policy="rules")
        agent.answer = lambda asked: {
            "result": asked["product"]["item"] == "alpha" and "science" in asked["caller"]["groups"]
        }

        async def statuses() -> list[int]:
            return [
                (await gateway.get(entry.stac, who))[0].status for entry in entries for who in (SCIENTIST, OUTSIDER)
            ]

        assert await statuses() == [200, 403, 403, 403]
        agent.answer = lambda _: web.Response(status=500)
        assert await statuses() == [503] * 4
        held = asyncio.Event()

        async def hold(_: dict[str, Any]) -> object:
            await held.wait()
            return {"result": True}

        agent.answer = hold
        assert (await gateway.get(entries[0].stac, SCIENTIST))[0].status == 503
        held.set()
        agent.answer = lambda _: {"result": True}
        assert await statuses() == [200] * 4
        # Many at once share the statement, and each gets what is its own.
        agent.answer = lambda asked: {"result": asked["product"]["item"] == "beta"}
        together = await asyncio.gather(*(gateway.get(entry.stac, SCIENTIST) for entry in entries * 10))
        assert [response.status for response, _ in together] == [403, 200] * 10
        urns = [entry.product for entry in entries]
        async with gateway.session.post(
            f"{gateway.url}/entities/access?scope=esa", data=json.dumps(urns).encode()
        ) as response:
            assert await response.json() == [urns[1]]
