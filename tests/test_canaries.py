"""That secrets are looked for everywhere is itself tested; and that the threat model names tests that exist."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from tests.canaries import Canaries

ROOT = Path(__file__).parents[1]
THREATS = ROOT / "docs" / "threat-model.md"


def test_a_secret_that_is_logged_or_answered_is_noticed() -> None:
    canaries = Canaries()
    canaries.hide("token of a", "hunter2-hunter2")
    log = logging.getLogger("canary.test")
    log.addHandler(canaries)
    log.propagate = False
    try:
        log.warning("nothing to see: %s", "hunter3")
        assert canaries.leaks == []
        log.warning("the token is %s", "hunter2-hunter2")
        try:
            raise ValueError("of hunter2-hunter2")
        except ValueError:
            log.exception("failed")
    finally:
        log.removeHandler(canaries)
    canaries.search_answer("GET /x", {"Location": "https://example.org/?t=hunter2-hunter2"}, b"")
    canaries.search_answer("GET /y", {}, b'{"t": "hunter2-hunter2"}')
    canaries.search_answer("GET /z", {}, b"")
    found = [leak.partition(":")[0] for leak in canaries.leaks]
    assert found == [
        "token of a in log of canary.test",
        "token of a in log of canary.test",
        "token of a in answer to GET /x",
        "token of a in answer to GET /y",
    ]


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", THREATS.read_text(encoding="utf-8"))
    assert len(named) > 60
    missing = [(file, name) for file, name in named if not _has(ROOT / file, name)]
    assert missing == []


def test_every_line_of_the_threat_model_names_a_test() -> None:
    text = THREATS.read_text(encoding="utf-8").partition("## Lines")[2].partition("## Known limits")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| threat")]
    assert lines
    assert [line for line in lines if "`tests/" not in line] == []


def _has(file: Path, name: str) -> bool:
    return file.exists() and re.search(rf"def {name}\(", file.read_text(encoding="utf-8")) is not None
