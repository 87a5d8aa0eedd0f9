"""The servers that the table is put to, and ways to put it."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tests.conformance.answers import Plain
from tests.conformance.http1 import ClosedError, Connection, Lines, ProtocolError, Response, serialize
from tests.conformance.table import Case, filling

SECONDS = 5
"""That a server may be silent."""
MOST_FAILURES = 3
"""After so many requests without an answer the others are not put any more."""


@dataclasses.dataclass(frozen=True)
class Served:
    """A file at one server."""

    data: bytes
    target: str
    missing: str
    """A target where nothing is."""
    lines: Lines = ()
    """Fields of every request."""


@dataclasses.dataclass(frozen=True)
class Request:
    method: str
    target: str
    lines: Lines


@dataclasses.dataclass(frozen=True)
class Run:
    """What a server answered to the cases."""

    plain: Plain
    filling: Mapping[str, str]
    answers: Mapping[str, Response | Exception]
    """By the id of the case."""
    connections: int

    def answer(self, case: Case) -> Response:
        answer = self.answers[case.id]
        if isinstance(answer, Exception):
            raise ProtocolError(repr(answer))
        return answer


class Server(Protocol):
    """Where requests are put to."""

    def ask(self, requests: Sequence[Request]) -> tuple[list[Response | Exception], int]:
        """The answers in the order of the requests, and how many connections it took."""
        ...


def put(cases: Sequence[Case], file: Served, server: Server) -> Run:
    """Put all ``cases`` to ``server``, after one plain GET."""
    (first,), _ = server.ask([Request("GET", file.target, file.lines)])
    if isinstance(first, Exception):
        raise first
    plain = Plain(first, file.data)
    known = filling(plain)
    requests = [
        Request(case.method, file.missing if case.missing else file.target, [*file.lines, *case.filled(known)])
        for case in cases
    ]
    answers, connections = server.ask(requests)
    ids = [case.id for case in cases]
    return Run(plain, known, dict(zip(ids, answers, strict=True)), connections)


@dataclasses.dataclass(frozen=True)
class OverSocket:
    """By a bare socket, on one connection as long as the server keeps it."""

    address: tuple[str, int]
    depth: int = 1
    """How many requests are sent before their answers are read."""
    may_hang_up: bool = False
    """Whether the server may close a connection between two answers without a word, as nginx does after a 412 of its
    own; the request is then put again on a new one (RFC 9112 §9.3.1)."""

    def ask(self, requests: Sequence[Request]) -> tuple[list[Response | Exception], int]:
        """See `Server.ask`."""
        answers: list[Response | Exception] = []
        connections = 0
        while len(answers) < len(requests):
            failures = [answer for answer in answers if isinstance(answer, Exception)]
            if len(failures) == MOST_FAILURES:
                answers += [failures[-1]] * (len(requests) - len(answers))
                break
            connections += 1
            with Connection(self.address, SECONDS) as connection:
                answers += self._on_one(connection, requests[len(answers) :])
        return answers, connections

    def _on_one(self, connection: Connection, requests: Sequence[Request]) -> Iterator[Response | Exception]:
        answered = 0
        for start in range(0, len(requests), self.depth):
            batch = requests[start : start + self.depth]
            for position, one in enumerate(batch):
                try:
                    if position == 0:
                        connection.send(b"".join(serialize(each.method, each.target, each.lines) for each in batch))
                    yield connection.receive(one.method)
                except (ProtocolError, OSError) as error:
                    if not (self.may_hang_up and answered and isinstance(error, ClosedError)):
                        yield error
                    return
                answered += 1
                if connection.is_closing:
                    return
            if connection.surplus:
                yield ProtocolError(f"bytes beyond the last answer: {connection.surplus[:200]!r}")
                return


@dataclasses.dataclass(frozen=True)
class OverCurl:
    """By curl over TLS and HTTP/2: one process and one connection for all requests."""

    program: str
    url: str
    certificate: Path
    directory: Path

    def ask(self, requests: Sequence[Request]) -> tuple[list[Response | Exception], int]:
        """See `Server.ask`."""
        config = self.directory / "curl.conf"
        segments = (self._segment(number, one) for number, one in enumerate(requests))
        config.write_bytes("next\n".join(segments).encode("utf-8", "surrogateescape"))
        run = subprocess.run(
            [self.program, "-q", "--fail-early", "--config", str(config)],
            capture_output=True,
            timeout=60,
            check=False,
            text=True,
        )
        results = [line.split() for line in run.stdout.splitlines()]
        answers = [self._answer(number, result) for number, result in enumerate(results)]
        # At its first failure curl stops.
        answers += [ProtocolError(f"curl gave up: {run.stderr}")] * (len(requests) - len(answers))
        return answers, sum(int(connects) for _, _, connects, _ in results)

    def _segment(self, number: int, request: Request) -> str:
        options = [
            ("url", f"{self.url}{request.target}"),
            ("cacert", str(self.certificate)),
            ("max-time", str(SECONDS)),
            ("dump-header", str(self.directory / f"header-{number}")),
            ("output", str(self.directory / f"body-{number}")),
            ("write-out", "%{http_version} %{exitcode} %{num_connects} %{size_download}\\n"),
            *(("header", _curl_header(name, value)) for name, value in request.lines),
        ]
        if request.method not in ("GET", "HEAD"):
            options.append(("request", request.method))
        lines = [f'{name} = "{_escaped(value)}"\n' for name, value in options]
        return "".join(["silent\nshow-error\nhttp2\npath-as-is\n", "head\n" * (request.method == "HEAD"), *lines])

    def _answer(self, number: int, result: list[str]) -> Response | Exception:
        version, code, _, size = result
        header, body = self.directory / f"header-{number}", self.directory / f"body-{number}"
        if code != "0":
            return ProtocolError(f"curl ended with {code}")
        if version != "2":
            return ProtocolError(f"HTTP/{version}")
        status_line, *lines = header.read_bytes().decode("ascii").rstrip("\r\n").split("\r\n")
        fields = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))
        # For HEAD curl writes the header there as well.
        content = body.read_bytes() if int(size) else b""
        return Response(int(status_line.split()[1]), fields, content)


def _curl_header(name: str, value: str) -> str:
    value = value.strip(" \t")  # HTTP/2 has no space around values
    return f"{name}: {value}" if value else f"{name};"


def _escaped(value: str) -> str:
    # The escapes that curl reads; those for write-out stay as they are.
    return value.replace('"', '\\"').replace("\t", "\\t")
