"""``/admin/downloads`` and ``/admin/changes`` as CSV and NDJSON."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.administration import records as pages
from gateway.api.admin_records import cell
from gateway.db import no_answer
from tests.api.recording import listed, streamed, write
from tests.api.support import PROJECT_ADMIN
from tests.harness import RunningGateway, bearer


@pytest.mark.parametrize("accept", ["text/csv", "text/html, text/csv;q=0.9", "TEXT/CSV; header=present"])
async def test_csv_is_all_of_it_and_can_be_read_back(
    gateway: RunningGateway, accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MOST", 7)
    await gateway.catalogue.tenant()
    await write(gateway, 30, user_agent='a "quoted"; one')
    response, body = await streamed(gateway, "", accept)
    assert (response.status, response.headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    assert response.headers["Content-Disposition"] == 'attachment; filename="downloads.csv"'
    assert response.headers["Cache-Control"] == "no-store"
    assert body.endswith(b"\r\n")
    rows = list(csv.DictReader(io.StringIO(body.decode(), newline=""), delimiter=";"))
    told = (await listed(gateway, "limit=1000"))["downloads"]
    assert [{name: cell_of(value) for name, value in one.items()} for one in told] == rows
    assert len((await streamed(gateway, "limit=11", accept))[1].splitlines()) == 12


def cell_of(value: object) -> str:
    return "" if value is None else str(value)


async def test_ndjson_is_a_record_a_line(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST", 7)
    await gateway.catalogue.tenant()
    await write(gateway, 30)
    response, body = await streamed(gateway, "", "application/x-ndjson")
    assert response.headers["Content-Type"] == "application/x-ndjson; charset=utf-8"
    assert [json.loads(line) for line in body.splitlines()] == (await listed(gateway, "limit=1000"))["downloads"]
    response, body = await streamed(gateway, "email=nobody", "application/x-ndjson")
    assert (response.status, body) == (200, b"")


async def test_a_stream_that_breaks_looks_broken(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST", 7)
    await gateway.catalogue.tenant()
    await write(gateway, 30)
    page = pages.page

    async def failing(database: Any, wanted: Any, *, before: Any, limit: int) -> Any:
        if before is not None:
            raise no_answer()
        return await page(database, wanted, before=before, limit=limit)

    monkeypatch.setattr(pages, "page", failing)
    with pytest.raises(aiohttp.ClientError):
        await streamed(gateway, "", "text/csv")


async def test_a_stream_holds_no_connection_while_its_client_is_slow(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.catalogue.tenant()
    await write(gateway, 6000, user_agent="x" * 1000, path="x" * 1000)
    fields = {**bearer(PROJECT_ADMIN), "Accept": "text/csv"}
    async with gateway.session.get(f"{gateway.url}/admin/downloads", headers=fields) as response:
        assert response.status == 200
        async with asyncio.timeout(20):
            while await gateway.catalogue.connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name = 'download-gateway' AND (state <> 'idle' OR backend_xmin IS NOT NULL)"
            ):
                await asyncio.sleep(0.01)
        assert not any("/admin/downloads" in line for line in gateway.access_log), "it is still being sent"
        assert len((await response.read()).splitlines()) == 6001


FORMULAS = ("\uff1d1", "=cmd|' /C calc'!A0", "+1", "-1+2", "@SUM(1)", "\tx", "\rx", "\nx")


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text: str) -> None:
    (row,) = csv.reader(io.StringIO(cell(text), newline=""), delimiter=";")
    assert row == [f"'{text}"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@SUM(1)"])
def test_no_cell_becomes_a_formula_where_another_separator_is_expected(separator: str, formula: str) -> None:
    """Spreadsheets part a line where their locale has it, whatever is quoted."""
    line = cell(f"harmless{separator}{formula}")
    assert not any(part.strip('"').startswith(tuple("=+-@")) for part in line.split(separator)), line


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=5))
def test_cells_are_read_back_as_they_were(texts: Sequence[str]) -> None:
    line = ";".join(map(cell, texts))
    (row,) = csv.reader(io.StringIO(line, newline=""), delimiter=";", strict=True)
    assert [one.replace("'", "") for one in row] == [text.replace("'", "") for text in texts]
    assert not any(one.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for one in row)
