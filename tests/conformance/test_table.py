"""Every case of the table at every server, and the gateway's answers beside those of nginx."""

from __future__ import annotations

import pytest

from tests.conformance.answers import Outcome, read
from tests.conformance.conftest import CASES, SERVERS, STATIC, Runs, product
from tests.conformance.differences import DIFFERENCES
from tests.conformance.table import EMPTY, TABLE, Case

FILES = tuple(CASES)


def test_the_table_is_large_and_names_no_two_cases_alike() -> None:
    ids = [case.id for case in (*TABLE, *EMPTY)]
    assert len(set(ids)) == len(ids) >= 120
    assert set(DIFFERENCES) <= set(ids)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(("file", "case"), product(FILES))
def test_case(runs: Runs, server: str, file: str, case: Case) -> None:
    run = runs(server, file)
    response = run.answer(case)
    assert read(case.method, response, run.plain) == case.expected(run.filling), f"RFC 9110 §{case.section}"


@pytest.mark.parametrize(("file", "case"), product(FILES))
def test_nginx_agrees_but_where_it_is_said(runs: Runs, file: str, case: Case) -> None:
    ours, theirs = runs("gateway", file), runs(STATIC, file)
    theirs_read = read(case.method, theirs.answer(case), theirs.plain)
    print("OUT", file, "|", case.id, "|", case.section, "|", case.expected(ours.filling), "|", theirs_read)
