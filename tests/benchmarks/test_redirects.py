"""Redirects: what counts as one, and the frameworks that give nothing but one."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from benchmarks.bare_redirects import FRAMEWORKS
from benchmarks.harness import Sample
from benchmarks.load import Job, LoadError, fetch
from benchmarks.plain_app import STORE
from benchmarks.redirects import AT_MANY, AT_ONE, FILE, PLAIN, about_added, check_redirect, count_answers, figures
from benchmarks.setting_up import request_head, running_app

SAMPLE = Sample(
    octets=0,
    requests=1000,
    seconds=2.0,
    server_cpu=1.5,
    neighbours_cpu={"PostgreSQL": 0.2, "Valkey": 0.1},
    median=0.001,
    p99=0.003,
)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_each_framework_answers_with_a_redirect_and_nothing_else(framework: str, tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    with running_app(tmp_path, core, "bare_redirects", f"--framework={framework}") as server:
        job = Job(server.port, request_head(FILE.gateway_path, "any"), 0, clients=2, requests=6, status=307)
        assert fetch(job, polls=False).octets == 0


@pytest.mark.parametrize("query", ["X-Amz-Date=1&X-Amz-Signature=ab", "AWSAccessKeyId=key&Signature=ab&Expires=1"])
def test_a_signed_url_of_the_store_is_what_a_redirect_leads_to(query: str) -> None:
    check_redirect("gateway", 307, f"{STORE}/archive/file?{query}")


@pytest.mark.parametrize(
    ("status", "target"),
    [
        (200, f"{STORE}/archive/file?X-Amz-Signature=ab"),
        (307, f"{STORE}/archive/file"),
        (307, "http://127.0.0.1:9999/archive/file?X-Amz-Signature=ab"),
        (307, ""),
    ],
)
def test_anything_else_is_no_redirect(status: int, target: str) -> None:
    with pytest.raises(LoadError, match="no redirect") as raised:
        check_redirect("gateway", status, target)
    assert "Signature" not in str(raised.value)


def test_lines_of_the_access_log_are_counted_by_status() -> None:
    log = 'serving on http://127.0.0.1:1\n{"status": 307}\n{"status": 200}\n{"event": "else"}\n{"status": 307}\n'
    assert count_answers(log, 307) == 2


def test_what_the_checks_add_is_the_difference_of_the_medians() -> None:
    bare = dataclasses.replace(SAMPLE, median=0.0004)
    assert "0.600 (0.600-0.600) ms" in about_added([SAMPLE, SAMPLE], [bare, bare])


def test_figures_are_shown_beside_every_peer_and_compared_where_there_is_a_goal() -> None:
    for peer in {*AT_ONE, *AT_MANY}:
        shown = {figure.name: figure.of(SAMPLE) for figure in figures(peer, 64)}
        assert shown["requests/s"] == 500
        assert shown["CPU ms per request"] == 1.5
        assert shown["latency: p99, ms"] == 3
    assert [figure.goal for figure in figures(PLAIN, 64) if figure.goal] == [">= 8", "<= 0.125"]
    assert not [figure.goal for figure in (*figures(PLAIN, 1), *figures("aiohttp", 64)) if figure.goal]
