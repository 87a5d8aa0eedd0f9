"""Disposable Valkey servers: single ones that fail as told, a cluster, and a primary that Sentinels watch.

Each listens on 127.0.0.1, lives in a temporary directory, and is ended by the id of its process.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from gateway.embedded.binaries import locate
from gateway.embedded.processes import dies_with_parent

PASSWORD = "of-the-tests"
SERVICE = "counters"


def free_port(*, with_bus: bool = False) -> int:
    """A port that nobody listens on; ``with_bus`` the one 10000 above, which a cluster's nodes talk on, is free too."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if not with_bus:
                return port
            if port + 10_000 < 65_536:
                with contextlib.suppress(OSError):
                    bus.bind(("127.0.0.1", port + 10_000))
                    return port


def until(holds: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Wait until ``holds``; a server that is not there yet does not count."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError):
            if holds():
                return
        assert time.monotonic() < deadline, f"{what}: not after {seconds} s"
        time.sleep(0.02)


class RedisServer:
    """One server. What it was asked to keep (``--appendonly yes``) it has again after a restart."""

    def __init__(self, directory: Path, *options: str, port: int = 0) -> None:
        self.port = port or free_port()
        self.directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir()

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """A client of the test's own; the test closes it."""
        return redis.Redis.from_url(self.url, socket_timeout=5)

    def ask(self, *command: str | int) -> Any:
        """What one command answers, on a connection of its own."""
        with self.client() as client:
            return client.execute_command(*command)

    def launch(self) -> None:
        """Start it without waiting for it. It ends with the thread that calls this."""
        command = [
            *(str(locate().valkey), *self._mode()),
            *("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.directory)),
            *self._options,
        ]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=dies_with_parent(signal.SIGKILL),  # noqa: PLW1509 - it makes one system call
            )

    def start(self) -> None:
        """Start it; it answers when this returns."""
        self.launch()
        self.wait()

    def wait(self) -> None:
        """Wait until it answers."""

        def answers() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, (self.directory / "log").read_text()
            return bool(self.ask("PING"))

        until(answers, f"{self.directory.name} answers")

    def stop(self) -> None:
        """End it in an orderly way."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it hang: it takes connections, but answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def forget(self) -> None:
        """Delete all that it keeps on disk; it must not run."""
        assert self._process is None
        shutil.rmtree(self.directory)
        self.directory.mkdir()

    def _mode(self) -> Sequence[str]:
        return ("--requirepass", PASSWORD, "--primaryauth", PASSWORD, "--save", "", "--repl-diskless-sync-delay", "0")

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        # A paused one hears nothing else.
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class MakeServer(Protocol):
    """Starts a server with options of its command line: ``redis_server("--maxmemory", "10mb")``."""

    def __call__(self, *options: str) -> RedisServer: ...


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Makes servers, which end with the test."""
    with contextlib.ExitStack() as stack:

        def make(*options: str) -> RedisServer:
            server = RedisServer(tmp_path / f"redis-{secrets.token_hex(4)}", *options)
            stack.callback(server.kill)
            server.start()
            return server

        yield make


class RedisCluster:
    """A cluster of primaries that share the slots evenly, the first ones with a replica each."""

    def __init__(self, directory: Path, *, primaries: int = 3, replicas: int = 0) -> None:
        self.nodes = [self._node(directory / f"node-{number}") for number in range(primaries + replicas)]
        self.primaries = self.nodes[:primaries]
        self._replicas = self.nodes[primaries:]

    @property
    def url(self) -> str:
        """Of the last two primaries: the others are to be found."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.primaries[-2:])
        return f"redis://:{PASSWORD}@{hosts}"

    def start(self) -> None:
        """Start and join the nodes; it serves all slots when this returns."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait()
        share = -(-REDIS_CLUSTER_HASH_SLOTS // len(self.primaries))
        for number, node in enumerate(self.primaries):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            last = min((number + 1) * share, REDIS_CLUSTER_HASH_SLOTS) - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", number * share, last)
        for number, node in enumerate(self.nodes):
            for other in self.nodes[:number]:
                node.ask("CLUSTER", "MEET", "127.0.0.1", other.port)
        for replica, primary in zip(self._replicas, self.primaries, strict=False):
            identifier = self.identifier(primary)
            until(lambda node=replica, name=identifier: name in self._known(node), "the replica knows its primary")  # type: ignore[misc]
            replica.ask("CLUSTER", "REPLICATE", identifier)
        self.wait_whole()

    def end(self) -> None:
        for node in self.nodes:
            node.kill()

    def is_whole(self) -> bool:
        """Whether all nodes know all others and serve, and all replicas are in step."""
        for node in self.nodes:
            info = _facts(node.ask("CLUSTER", "INFO"))
            if info["cluster_state"] != "ok" or info["cluster_known_nodes"] != str(len(self.nodes)):
                return False
        return all(_facts(node.ask("INFO", "replication"))["master_link_status"] == "up" for node in self._replicas)

    def wait_whole(self) -> None:
        """Wait until `is_whole`."""
        until(self.is_whole, "the cluster is whole")

    def has_replaced(self, dead: RedisServer) -> bool:
        """Whether all other primaries say that none of the slots is held by ``dead``, which is gone."""
        for node in self.nodes:
            if node is not dead and any(
                int(primary[1]) == dead.port for _, _, primary, *_ in node.ask("CLUSTER", "SLOTS")
            ):
                return False
        return True

    def holder(self, key: str) -> RedisServer:
        """The primary of the slot of ``key``."""
        return next(node for node in self.nodes if node.port == self._port_of(key_slot(key.encode())))

    def other(self, node: RedisServer) -> RedisServer:
        """A primary that is not ``node``."""
        return next(other for other in self.primaries if other is not node)

    @staticmethod
    def identifier(node: RedisServer) -> str:
        return _text(node.ask("CLUSTER", "MYID"))

    def begin_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """From now on the target takes new keys of the slot: those the source does not have are answered ASK."""
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.identifier(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.identifier(target))

    def move_keys(self, slot: int, source: RedisServer, target: RedisServer) -> int:
        """Move the keys of the slot, a few at a time; what has several of them is answered TRYAGAIN meanwhile."""
        moved = 0
        with source.client() as client:
            while keys := client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
                where = ("127.0.0.1", target.port, "", 0, 5000, "AUTH", PASSWORD)
                client.execute_command("MIGRATE", *where, "KEYS", *map(_text, keys))
                moved += len(keys)
        return moved

    def end_move(self, slot: int, target: RedisServer) -> None:
        """From now on the slot is the target's, which the others are told; the source answers MOVED."""
        for node in [target, *(node for node in self.primaries if node is not target)]:
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", self.identifier(target))

    def _port_of(self, slot: int) -> int:
        for node in self.nodes:
            with contextlib.suppress(redis.RedisError):
                for first, last, primary, *_ in node.ask("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return int(primary[1])
        raise LookupError(slot)

    @staticmethod
    def _known(node: RedisServer) -> str:
        return _text(node.ask("CLUSTER", "NODES"))

    @staticmethod
    def _node(directory: Path) -> RedisServer:
        port = free_port(with_bus=True)
        options = (
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--cluster-replica-validity-factor",
            "0",
        )
        return RedisServer(directory, *options, port=port)


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Three primaries. Whoever moves a slot moves it back."""
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def fragile_cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    """Three primaries, the first with a replica, for a test that breaks them."""
    cluster = RedisCluster(tmp_path, replicas=1)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()


class SentinelServer(RedisServer):
    """A Sentinel; it rewrites its configuration."""

    def __init__(self, directory: Path, port: int, configuration: Sequence[str]) -> None:
        super().__init__(directory, port=port)
        (directory / "sentinel.conf").write_text("\n".join(configuration) + "\n")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def _mode(self) -> Sequence[str]:
        return (str(self.directory / "sentinel.conf"), "--sentinel")


class RedisSentinels:
    """A primary, its replica, and three Sentinels of which two must agree."""

    def __init__(self, directory: Path, *, down_after: int = 500) -> None:
        """Prepare; ``down_after`` milliseconds without an answer a server counts as down."""
        self.servers = [RedisServer(directory / f"data-{number}") for number in range(2)]
        primary, replica = self.servers
        ports = [free_port() for _ in range(3)]
        names = [secrets.token_hex(20) for _ in ports]
        self.sentinels = []
        for number, port in enumerate(ports):
            # All that they would find out by themselves within some seconds.
            others = [
                f"sentinel known-sentinel {SERVICE} 127.0.0.1 {other} {name}"
                for other, name in zip(ports, names, strict=True)
                if other != port
            ]
            configuration = [
                f"sentinel myid {names[number]}",
                f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 2",
                f"sentinel auth-pass {SERVICE} {PASSWORD}",
                f"sentinel down-after-milliseconds {SERVICE} {down_after}",
                f"sentinel failover-timeout {SERVICE} 3000",
                f"sentinel known-replica {SERVICE} 127.0.0.1 {replica.port}",
                *others,
            ]
            self.sentinels.append(SentinelServer(directory / f"sentinel-{number}", port, configuration))

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis://:{PASSWORD}@{hosts}/0"

    def start(self) -> None:
        """Start all; a failover is possible when this returns."""
        primary, replica = self.servers
        for server in (primary, replica):
            server.start()
        replica.ask("REPLICAOF", "127.0.0.1", primary.port)
        until(lambda: self._is_in_step(replica), "the replica is in step")
        for sentinel in self.sentinels:
            sentinel.launch()
        for sentinel in self.sentinels:
            sentinel.wait()
            until(lambda one=sentinel: self._can_fail_over(one), "the Sentinels see one another")  # type: ignore[misc]

    def end(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.kill()

    def primary(self) -> RedisServer:
        """Which the Sentinels say it is."""
        _, port = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(server for server in self.servers if server.port == int(port))

    def replica(self) -> RedisServer:
        """The other one."""
        primary = self.primary()
        return next(server for server in self.servers if server is not primary)

    @staticmethod
    def takes_changes(server: RedisServer) -> bool:
        return _facts(server.ask("INFO", "replication"))["role"] == "master"

    @staticmethod
    def _is_in_step(server: RedisServer) -> bool:
        return _facts(server.ask("INFO", "replication")).get("master_link_status") == "up"

    @staticmethod
    def _can_fail_over(sentinel: RedisServer) -> bool:
        (replica,) = sentinel.ask("SENTINEL", "REPLICAS", SERVICE)
        return replica[b"flags"] == b"slave" and _text(sentinel.ask("SENTINEL", "CKQUORUM", SERVICE)).startswith("OK 3")


@pytest.fixture(scope="session")
def redis_sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisSentinels]:
    """For tests that leave all as it is: a failover takes longer to undo than a start."""
    sentinels = RedisSentinels(tmp_path_factory.mktemp("sentinels"), down_after=60_000)
    try:
        sentinels.start()
        yield sentinels
    finally:
        sentinels.end()


@pytest.fixture
def fragile_sentinels(tmp_path: Path) -> Iterator[RedisSentinels]:
    """For a test that breaks them."""
    sentinels = RedisSentinels(tmp_path)
    try:
        sentinels.start()
        yield sentinels
    finally:
        sentinels.end()


def _facts(answer: Any) -> dict[str, str]:
    """What INFO says: text, or a dictionary where redis-py knows it."""
    if isinstance(answer, dict):
        return {str(name): str(value) for name, value in answer.items()}
    pairs = (line.partition(":") for line in _text(answer).splitlines())
    return {name: value for name, _, value in pairs}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
