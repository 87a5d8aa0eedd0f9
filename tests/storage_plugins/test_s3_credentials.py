"""Credentials are at hand when they are needed, fetched once for all who wait, and renewed before they end."""

from __future__ import annotations

import asyncio
import datetime
import json
import math
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.storage import CopyUnavailableError
from storage_plugins.s3.chain import AwsChain
from storage_plugins.s3.credentials import SKEW, RefreshedCredentials, StaticCredentials, seconds_left
from storage_plugins.s3.sigv4 import Credentials
from tests.storage_plugins.support import until

START = 1_800_000_000.0


class Chain:
    """Gives what it is told to, when it is told to."""

    def __init__(self) -> None:
        self.now = START
        self.fetches = 0
        self.closed = False
        self.gives: Credentials | Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = asyncio.Event()
        self.source = RefreshedCredentials(self, deadline=5, now=lambda: self.now)

    async def fetch(self) -> Credentials | None:
        self.fetches += 1
        self.asked.set()
        await self.may_answer.wait()
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives

    def close(self) -> None:
        self.closed = True

    def until(self, seconds: float) -> Credentials:
        """Have it give credentials that can be relied on for ``seconds`` from now on."""
        self.gives = Credentials("id", f"secret-{self.fetches}", expires=self.now + seconds + SKEW)
        return self.gives


@pytest.fixture
async def chain() -> AsyncIterator[Chain]:
    chain = Chain()
    yield chain
    await chain.source.close()


class TestRefreshedCredentials:
    async def test_those_that_last_are_fetched_once(self, chain: Chain) -> None:
        chain.gives = Credentials("id", "secret")
        for _ in range(3):
            assert await chain.source.credentials(60) is chain.gives
            chain.now += 1e9
        assert chain.fetches == 1

    async def test_all_who_wait_share_one_fetch(self, chain: Chain) -> None:
        chain.until(3600)
        chain.may_answer.clear()
        waiting = [asyncio.create_task(chain.source.credentials(60)) for _ in range(50)]
        await chain.asked.wait()
        waiting[0].cancel()
        chain.may_answer.set()
        cancelled, *given = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(cancelled, asyncio.CancelledError)
        assert given == [chain.gives] * 49
        assert chain.fetches == 1

    async def test_who_asks_for_longer_than_they_last_gets_new_ones(self, chain: Chain) -> None:
        old = chain.until(3600)
        assert await chain.source.credentials(60) is old
        chain.now += 3000
        new = chain.until(3600)
        assert await chain.source.credentials(601) is new
        assert chain.fetches == 2

    async def test_before_anybody_has_to_wait_new_ones_come_in_the_background(self, chain: Chain) -> None:
        old = chain.until(3600)
        assert await chain.source.credentials(60) is old
        chain.now += 3600 - 60 - 299
        new = chain.until(3600)
        chain.asked.clear()
        chain.may_answer.clear()
        assert await chain.source.credentials(60) is old
        await chain.asked.wait()
        assert await chain.source.credentials(60) is old
        chain.may_answer.set()
        assert await chain.source.credentials(3600) is new
        assert chain.fetches == 2

    async def test_where_no_better_ones_can_be_had_the_old_ones_do_to_their_end(self, chain: Chain) -> None:
        same = chain.until(600)
        for _ in range(10):
            assert await chain.source.credentials(3600) is same
            chain.now += 59.9
        # Asked again once a minute, and no more.
        assert chain.fetches == 5
        chain.now += 1
        with pytest.raises(CopyUnavailableError, match="no credentials to sign with: those at hand ended"):
            await chain.source.credentials(3600)

    async def test_a_chain_in_trouble_leaves_the_old_ones_until_they_end(self, chain: Chain) -> None:
        old = chain.until(600)
        assert await chain.source.credentials(60) is old
        chain.gives = ValueError("no\n  luck" + "!" * 1000)
        chain.now += 599
        assert await chain.source.credentials(60) is old
        chain.now += 5
        with pytest.raises(CopyUnavailableError, match=r"the AWS chain failed: ValueError: no luck!{293}$"):
            await chain.source.credentials(60)
        chain.now += 5
        new = chain.until(600)
        assert await chain.source.credentials(60) is new

    async def test_without_any_it_is_asked_every_few_seconds(self, chain: Chain) -> None:
        for _ in range(10):
            with pytest.raises(CopyUnavailableError, match="the AWS chain has none"):
                await chain.source.credentials(60)
            chain.now += 1
        assert chain.fetches == 2

    async def test_a_clock_set_back_stops_nothing(self, chain: Chain) -> None:
        with pytest.raises(CopyUnavailableError):
            await chain.source.credentials(60)
        chain.now -= 86400
        found = chain.until(600)
        assert await chain.source.credentials(60) is found

    async def test_those_that_a_server_refused_are_replaced(self, chain: Chain) -> None:
        old = chain.until(math.inf)
        assert await chain.source.credentials(60) is old
        chain.now += 5
        chain.source.refused(old)
        new = chain.until(math.inf)
        assert new != old
        assert await chain.source.credentials(60) is new
        chain.source.refused(old)
        chain.now += 5
        assert await chain.source.credentials(60) is new
        assert chain.fetches == 2

    async def test_a_server_that_refuses_all_does_not_wear_out_the_chain(self, chain: Chain) -> None:
        for _ in range(100):
            chain.until(3600)
            chain.source.refused(await chain.source.credentials(60))
            chain.now += 0.1
        assert chain.fetches == 2

    async def test_a_chain_that_hangs_is_given_up(self) -> None:
        chain = Chain()
        chain.may_answer.clear()
        source = RefreshedCredentials(chain, deadline=0.01, now=lambda: chain.now)
        with pytest.raises(CopyUnavailableError, match=r"did not answer within 0\.01 s"):
            await source.credentials(60)
        await source.close()

    async def test_its_end_ends_what_goes_on(self, chain: Chain) -> None:
        chain.may_answer.clear()
        waiting = asyncio.create_task(chain.source.credentials(60))
        await chain.asked.wait()
        await chain.source.close()
        with pytest.raises(CopyUnavailableError):
            await waiting
        assert chain.closed
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_static_ones_stay() -> None:
    source, given = StaticCredentials(Credentials("id", "secret")), Credentials("id", "secret")
    source.refused(given)
    assert await source.credentials(math.inf) == given
    assert seconds_left(given, START) == math.inf
    await source.close()


PROCESS = """
import json, pathlib, sys
counter = pathlib.Path(sys.argv[1])
number = int(counter.read_text()) + 1
counter.write_text(str(number))
print(json.dumps({"Version": 1, "AccessKeyId": f"id-{number}", "SecretAccessKey": "process-secret",
                  "SessionToken": "process-token", "Expiration": sys.argv[2]}))
"""


async def credentials_of_chain(profile: str | None) -> Credentials | None:
    chain = AwsChain(profile)
    try:
        return await chain.fetch()
    finally:
        chain.close()


class TestAwsChain:
    """aiobotocore, with real files and processes."""

    @pytest.fixture(autouse=True)
    def nothing_of_this_machine(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("HOME", str(tmp_path))

    async def test_there_may_be_none(self) -> None:
        assert await credentials_of_chain(None) is None

    async def test_a_credentials_file_is_read_each_time(self, tmp_path: Path) -> None:
        file = tmp_path / "credentials"
        file.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
        assert await credentials_of_chain(None) == Credentials("a", "b")
        file.write_text(
            "[other]\naws_access_key_id = c\naws_secret_access_key = d\naws_session_token = e\n"
            "[default]\naws_access_key_id = f\naws_secret_access_key = g\n"
        )
        assert await credentials_of_chain(None) == Credentials("f", "g")
        assert await credentials_of_chain("other") == Credentials("c", "d", "e")

    async def test_the_environment_counts_unless_a_profile_is_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "credentials").write_text("[other]\naws_access_key_id = c\naws_secret_access_key = d\n")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        assert await credentials_of_chain(None) == Credentials("a", "b")
        assert await credentials_of_chain("other") == Credentials("c", "d")

    async def test_a_process_tells_when_they_end(self, tmp_path: Path) -> None:
        (tmp_path / "process.py").write_text(PROCESS)
        (tmp_path / "counter").write_text("0")
        ends = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(hours=1)
        command = f"{sys.executable} {tmp_path / 'process.py'} {tmp_path / 'counter'} {ends.isoformat()}"
        (tmp_path / "config").write_text(f"[profile some]\ncredential_process = {command}\n")
        expected = Credentials("id-1", "process-secret", "process-token", ends.timestamp())
        assert await credentials_of_chain("some") == expected
        again = await credentials_of_chain("some")
        assert again is not None
        assert again.access_key_id == "id-2"

    async def test_an_unknown_profile_is_named(self) -> None:
        source = RefreshedCredentials(AwsChain("nobody"))
        with pytest.raises(CopyUnavailableError, match=r"ProfileNotFound: .*nobody"):
            await source.credentials(60)
        await source.close()

    async def test_what_a_broken_process_writes_is_not_shown(self, tmp_path: Path) -> None:
        written = json.dumps({"Version": 1, "SecretAccessKey": "process-secret"})
        (tmp_path / "process.py").write_text(f"print('''{written}''')")
        (tmp_path / "config").write_text(f"[default]\ncredential_process = {sys.executable} {tmp_path}/process.py\n")
        source = RefreshedCredentials(AwsChain(None))
        with pytest.raises(CopyUnavailableError, match="AccessKeyId") as caught:
            await source.credentials(60)
        assert "process-secret" not in str(caught.value)
        await source.close()

    async def test_a_process_that_hangs_is_given_up_and_not_started_again(self, tmp_path: Path) -> None:
        pipe, started = tmp_path / "pipe", tmp_path / "started"
        os.mkfifo(pipe)
        program = f"import os\nprint(os.getpid(), file=open('{started}', 'a'), flush=True)\nopen('{pipe}').read()"
        (tmp_path / "process.py").write_text(program)
        (tmp_path / "config").write_text(f"[default]\ncredential_process = {sys.executable} {tmp_path}/process.py\n")
        now = START
        source = RefreshedCredentials(AwsChain(None), deadline=0.2, now=lambda: now)
        for _ in range(3):
            with pytest.raises(CopyUnavailableError, match=r"did not answer within 0\.2 s"):
                await source.credentials(60)
            now += 5
        await source.close()
        await until(lambda: started.exists() and bool(started.read_text()))
        (number,) = started.read_text().split()
        pipe.write_text("")
        await until(lambda: not Path("/proc", number).exists())
