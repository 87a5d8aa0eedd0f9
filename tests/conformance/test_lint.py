"""Every answer of the table's run, read by a linter of HTTP messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime

import pytest
from httplint import HttpRequestLinter, HttpResponseLinter, Note, levels

from tests.conformance.conftest import CASES, SERVERS, Runs
from tests.conformance.http1 import Response
from tests.conformance.table import Case
from tests.conformance.targets import Run

ALLOWED: dict[str, tuple[str, Callable[[Response], bool]]] = {
    "FIELD_DEPRECATED": (
        "Digest (RFC 3230) gave way to Repr-Digest (RFC 9530), which stands beside it; aria2 verifies this one alone.",
        lambda response: response.get("Digest") is not None,
    ),
    "PARTIAL_WITHOUT_RANGE": (
        "RFC 9110 §15.3.7.2: a multipart answer MUST NOT have Content-Range in its header; the linter overlooks that.",
        lambda response: (response.get("Content-Type") or "").startswith("multipart/byteranges;"),
    ),
    "STATUS_BAD_REQUEST": (
        "It says that the status is 400, which nginx answers to what REFUSED_BY_THE_PROXY lists.",
        lambda response: response.status == 400,
    ),
}
"""Notes of the levels BAD and WARN that stand: why, and where."""


def notes(case: Case, run: Run) -> Iterator[Note]:
    """What is bad or doubtful in the answer to a case."""
    response = run.answer(case)
    request = HttpRequestLinter()
    request.process_request_topline(case.method.encode("ascii"), b"/asset", b"HTTP/1.1")
    request.process_headers(
        [(name.encode("ascii"), value.encode("utf-8", "surrogateescape")) for name, value in case.filled(run.filling)]
    )
    # It is read after the whole run: the linter would find our clock late.
    answered = parsedate_to_datetime(response.get("Date") or "").timestamp()
    linter = HttpResponseLinter(start_time=answered, _related=request)
    linter.is_head_response = case.method == "HEAD"
    linter.process_response_topline(b"HTTP/1.1", str(response.status).encode("ascii"), b"")
    linter.process_headers([(name.encode("ascii"), value.encode("ascii")) for name, value in response.fields])
    linter.feed_content(response.body)
    linter.finish_content(complete=True)
    return (note for note in linter.notes if note.level in (levels.BAD, levels.WARN))


@pytest.mark.parametrize("server", [server for server in SERVERS if server != "gateway, pipelined"])
def test_the_linter_finds_nothing_but_what_is_allowed(runs: Runs, server: str) -> None:
    found, seen = [], set()
    for file, cases in CASES.items():
        run = runs(server, file)
        for case in cases:
            for note in notes(case, run):
                name = type(note).__name__
                seen.add(name)
                if name not in ALLOWED or not ALLOWED[name][1](run.answer(case)):
                    found.append((file, case.id, name, str(note)))
    assert not found
    expected = set(ALLOWED) if server.startswith("proxy") else set(ALLOWED) - {"STATUS_BAD_REQUEST"}
    assert seen == expected, "an allowance is not needed any more"
