"""Every case of the table at every server, and the gateway's answers beside those of nginx."""

from __future__ import annotations

import collections

import pytest

from tests.conformance.answers import Outcome, read
from tests.conformance.conftest import CASES, SERVERS, STATIC, Runs
from tests.conformance.differences import BY_CASE, DIFFERENCES, REFUSED_BY_THE_PROXY
from tests.conformance.http1 import Response
from tests.conformance.table import EMPTY, TABLE, Case

FILES = {case.id: [name for name, cases in CASES.items() if case in cases] for case in (*TABLE, *EMPTY)}
"""The files that a case is for."""

HOP_BY_HOP = {"connection", "date", "server", "x-request-id"}
"""Fields that differ between two answers to the same request, or that a proxy sets itself."""

each_case = pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in (*TABLE, *EMPTY)])


def test_the_table_is_large_and_names_no_two_cases_alike() -> None:
    ids = [case.id for case in (*TABLE, *EMPTY)]
    assert len(set(ids)) == len(ids) >= 120
    listed = [case for difference in DIFFERENCES for case in difference.cases]
    assert len(set(listed)) == len(listed)
    assert {*listed, *REFUSED_BY_THE_PROXY} <= set(ids)


@pytest.mark.parametrize("server", SERVERS)
@each_case
def test_case(runs: Runs, server: str, case: Case) -> None:
    for file in FILES[case.id]:
        run = runs(server, file)
        expected = case.expected(run.filling)
        if server.startswith("proxy") and case.id in REFUSED_BY_THE_PROXY:
            expected = Outcome(400)
        assert read(case.method, run.answer(case), run.plain) == expected, f"{file}: RFC 9110 §{case.section}"


@each_case
def test_nginx_differs_only_where_it_is_said(runs: Runs, case: Case) -> None:
    for file in FILES[case.id]:
        ours, theirs = (
            read(case.method, run.answer(case), run.plain) for run in (runs("gateway", file), runs(STATIC, file))
        )
        if difference := BY_CASE.get(case.id):
            assert theirs.status == difference.status, file
            assert theirs != ours, f"{file}: nginx agrees by now: {difference.reason}"
        else:
            assert theirs == ours, file


@pytest.mark.parametrize("server", [server for server in SERVERS if server != "proxy, X-Accel-Redirect"])
@pytest.mark.parametrize("file", CASES)
def test_the_connection_is_kept(runs: Runs, server: str, file: str) -> None:
    refused = sum(case.id in REFUSED_BY_THE_PROXY for case in CASES[file]) if server == "proxy, HTTP/1.1" else 0
    assert runs(server, file).connections == 1 + refused


# What nginx says of a file that it sends itself is compared field by field in tests/offload.
@pytest.mark.parametrize("server", [server for server in SERVERS[1:] if server != "proxy, X-Accel-Redirect"])
@pytest.mark.parametrize("file", CASES)
def test_a_proxy_changes_no_field_and_no_byte(runs: Runs, server: str, file: str) -> None:
    direct, other = runs("gateway", file), runs(server, file)
    for case in CASES[file]:
        if case.id in REFUSED_BY_THE_PROXY:
            continue
        ours, theirs = direct.answer(case), other.answer(case)
        assert _end_to_end(theirs) == _end_to_end(ours), case.id
        assert theirs.body == ours.body, case.id


def _end_to_end(response: Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.fields if name.lower() not in HOP_BY_HOP}


@pytest.mark.parametrize("file", CASES)
def test_every_answer_of_the_gateway_has_what_belongs_to_its_status(runs: Runs, file: str) -> None:
    run = runs("gateway", file)
    seen = collections.Counter[int]()
    for case in CASES[file]:
        response = run.answer(case)
        seen[response.status] += 1
        assert response.get("X-Request-ID"), case.id
        assert response.get("Server") == "download-gateway", case.id
        if response.status in (200, 206):
            assert (response.get("Content-Disposition") or "").startswith("attachment; filename="), case.id
        if response.status in (200, 206, 304):
            for name in ("Repr-Digest", "Digest", "X-Content-Type-Options"):
                assert response.get(name) == run.plain.response.get(name), (case.id, name)  # RFC 9530 §3
        if response.status == 304:
            assert response.get("Content-Disposition") is None, case.id
        if response.status >= 400:
            assert response.get("ETag") is None, case.id
            assert response.get("Cache-Control") == "no-store", case.id
            assert response.get("Content-Type") == "application/json", case.id
        if response.status == 405:
            assert response.get("Allow") == "GET,HEAD", case.id  # RFC 9110 §15.5.6
    assert seen[200]
    assert seen[304]
    assert seen[412]
    assert seen[416]
