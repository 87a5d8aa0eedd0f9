"""``gateway conformance``: what is right passes, and every fault is found by the check that is about it."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from gateway.conformance.checks import CHECKS
from gateway.conformance.report import junit
from gateway.conformance.suite import Result
from gateway.storage import Stat
from tests.commands.stac_server import stac_server
from tests.commands.support import BUCKET, outcomes, run, s3_storage
from tests.harness import SCIENTIST, Entry, token
from tests.s3.strict import StrictS3
from tests.stac.doors import Doors, fresh


@pytest.mark.parametrize("delivery", ["stream", "redirect"])
async def test_our_downloads_pass(
    doors: Doors, strict: StrictS3, delivery: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(range(256)) * 400
    async with fresh(doors, storage=[s3_storage(strict, delivery=delivery)]) as gateway:
        entry: Entry = await gateway.catalogue.described(content)
        stored = strict.store.put(BUCKET, "esa/data", content)
        stat = Stat(len(content), stored.modified, stored.etag.strip('"'))
        await gateway.catalogue.copy(entry, "store", f"{BUCKET}/esa/data", stat)
        monkeypatch.setenv("GATEWAY_CONFORMANCE_TOKEN", token(SCIENTIST))
        names = ["--collection", entry.collection, "--item", entry.item, "--asset", entry.asset]
        done = await run("conformance", gateway.url, *names)
    found = outcomes(done)
    assert (done.exit_code, found["fail"], found["warning"]) == (0, set(), set()), done.output
    skipped = {"a redirect names an absolute URI", "a redirect needs no token where it leads"}
    assert found["skip"] & skipped == (skipped if delivery == "stream" else set())
    assert "a range of another version gives the whole file" in found["pass"]
    assert {"a bad token is an exception", "no token is an exception"} <= found["pass"]


async def test_a_server_that_is_right_passes() -> None:
    async with stac_server() as server:
        done = await run("conformance", server.root)
    found = outcomes(done)
    assert (done.exit_code, found["fail"], found["warning"]) == (0, set(), set()), done.output
    assert f"testing with {server.root}/collections/c/items/i/download/data" in done.output
    assert found["skip"] == {
        "a redirect names an absolute URI",
        "a redirect needs no token where it leads",
        "a bad token is an exception",
        "no token is an exception",
    }
    assert done.output.splitlines()[-1] == f"{len(CHECKS) - 4} passed, 0 failed, 0 warnings, 4 skipped"


async def test_one_that_redirects_passes_and_its_storage_sees_no_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret-of-the-test\n", encoding="ascii")
    async with stac_server(token="secret-of-the-test", redirects=True) as server:
        done = await run("conformance", f"{server.root}/", "--token-file", tmp_path / "token")
    found = outcomes(done)
    assert (done.exit_code, found["fail"], found["warning"], found["skip"]) == (0, set(), set(), set()), done.output
    assert server.shown_to_storage == []
    assert "secret" not in done.output


@pytest.mark.parametrize(
    ("fault", "redirects", "failing", "said"),
    [
        ("302", True, "GET is 200 with the bytes or 307, never another redirect", "by 302; the class has 307"),
        ("relative", True, "a redirect names an absolute URI", "not an absolute URI"),
        ("token at the storage", True, "GET is 200 with the bytes or 307, never another redirect", "leads to 403"),
        ("round and round", False, "GET is 200 with the bytes or 307, never another redirect", "more than 5 redirects"),
        ("to nowhere", False, "GET is 200 with the bytes or 307, never another redirect", "is no URL"),
        ("to a mailbox", False, "GET is 200 with the bytes or 307, never another redirect", "no http or https URL"),
        ("307 alone", False, "GET is 200 with the bytes or 307, never another redirect", "307 without a Location"),
        ("nonsense", False, "/conformance advertises the class", "conformsTo of /conformance lacks"),
        ("200 with an error", False, "an unknown asset is 404", "is 200: clients would save the error as the file"),
        ("bare string", False, "an unknown item is told as an exception", "is a JSON string, not an object"),
        ("html errors", False, "an unknown asset is told as an exception", "404 is text/html, not application/json"),
        ("number as code", False, "an unknown asset is told as an exception", "no code that is a string"),
        ("no code", False, "an unknown collection is told as an exception", "no code that is a string"),
        ("500 for an asset", False, "an unknown asset is 404", "is 500, not 404"),
        ("no head", False, "HEAD answers as GET does", "HEAD is 405 where GET gives the file"),
        ("no class", False, "the landing page advertises the class", "conformsTo of / lacks"),
        ("conformance as html", False, "/conformance advertises the class", "text/html: no JSON object"),
        ("other size", False, "the bytes are as many as is said", "10240 bytes came; file:size of the asset is 10241"),
        ("other checksum", False, "the bytes have the checksum of the asset", "the bytes have the SHA-256"),
        ("shifted", False, "a range is the very bytes", "are not those of the whole file"),
        ("shifted", True, "a range from the end is the very bytes", "bytes came for bytes=-500"),
        ("no Content-Range", False, "a range is the very bytes", "Content-Range is None"),
        ("any unit", False, "a range in an unknown unit is passed over", "is 206; it must be passed over"),
        ("no If-Range", True, "a range of another version gives the whole file", "resuming would mix two files"),
        ("no If-None-Match", False, "what is unchanged is 304", "is 200, not 304"),
        ("no If-Match", True, "a precondition that fails is 412", "is 200, not 412"),
    ],
)  # fmt: skip
async def test_each_fault_is_found(fault: str, redirects: bool, failing: str, said: str) -> None:
    async with stac_server(fault, redirects=redirects) as server:
        done = await run("conformance", server.root)
    assert (done.exit_code, failing in outcomes(done)["fail"]) == (1, True), done.output
    assert said in done.output


@pytest.mark.parametrize(
    ("fault", "failing", "said"),
    [
        ("to the log-in", "no token is an exception", "without the token the download is 302"),
        ("to the log-in", "a bad token is an exception", "programs cannot log in there"),
        ("no challenge", "no token is an exception", "401 has no WWW-Authenticate"),
        ("html errors", "a bad token is an exception", "401 is text/html"),
    ],
)
async def test_each_fault_of_refusals_is_found(
    fault: str, failing: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_CONFORMANCE_TOKEN", "good")
    async with stac_server(fault, token="good") as server:
        done = await run("conformance", server.root)
    assert (done.exit_code, failing in outcomes(done)["fail"]) == (1, True), done.output
    assert said in done.output


@pytest.mark.parametrize(
    ("fault", "warned"),
    [
        ("no ranges", "a range is the very bytes"),
        ("no link", "the asset leads to its download"),
        ("no operation", "the API description has getDownload"),
        ("chunked", "the bytes are as many as is said"),
        ("text", "the media type is that of the asset"),
    ],
)
async def test_what_is_allowed_and_unusual_is_a_warning(fault: str, warned: str) -> None:
    async with stac_server(fault) as server:
        done = await run("conformance", server.root)
    assert (done.exit_code, warned in outcomes(done)["warning"]) == (0, True), done.output


async def test_where_nothing_can_be_tested_the_status_is_2(tmp_path: Path) -> None:
    async with stac_server("empty") as server:
        done = await run("conformance", server.root)
        assert (done.exit_code, "has an item with an asset" in done.output) == (2, True)
    done = await run("conformance", server.root)
    assert (done.exit_code, "127.0.0.1 cannot be connected to" in done.output) == (2, True)
    for wrong in (
        "stac.example.org",
        "ftp://h",
        "http://",
        "http://u:p@h",
        "http://h/?x=1",
        "http://h:0",
        "http://h b",
    ):
        assert (await run("conformance", wrong)).exit_code == 2, wrong
    assert (await run("conformance", "http://h", "--item", "i")).exit_code == 2
    async with stac_server() as server:
        done = await run("conformance", server.root, "--junit", tmp_path / "none" / "report.xml")
        assert (done.exit_code, "cannot be written: No such file" in done.output) == (2, True)
    (tmp_path / "token").write_text("two words", encoding="ascii")
    done = await run("conformance", "http://127.0.0.1:9", "--token-file", tmp_path / "token")
    assert (done.exit_code, "one line of printable ASCII" in done.output) == (2, True)


async def test_a_server_that_hangs_is_given_up_on() -> None:
    async with stac_server("hangs") as server:
        names = ["--collection", "c", "--item", "i", "--asset", "data"]
        done = await run("conformance", server.root, *names, "--timeout", "0.5")
    assert (done.exit_code, "127.0.0.1 did not answer within 0.5 s" in done.output) == (1, True)
    assert "GET is 200 with the bytes or 307, never another redirect" in outcomes(done)["fail"]
    assert "an unknown asset is 404" in outcomes(done)["pass"]


async def test_no_more_is_read_than_is_allowed() -> None:
    async with stac_server() as server:
        done = await run("conformance", server.root, "--max-bytes", "1024")
    assert (done.exit_code, "longer than the 1024 bytes that are read" in done.output) == (0, True), done.output
    assert "a range is the very bytes" in outcomes(done)["pass"]


async def test_the_junit_report_tells_the_same(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    async with stac_server("no head", "no ranges") as server:
        done = await run("conformance", server.root, "--junit", report)
    found = outcomes(done)
    (suite,) = ET.parse(report).getroot().findall("testsuite")
    told = {
        kind: {str(case.get("name")) for case in suite if case.find(element) is not None}
        for kind, element in (("fail", "failure"), ("skip", "skipped"), ("warning", "system-out"))
    }
    assert told == {kind: found[kind] for kind in told}
    assert found["fail"]
    assert (suite.get("tests"), suite.get("failures")) == (str(len(CHECKS)), str(len(found["fail"])))


def test_what_a_server_says_cannot_break_the_report() -> None:
    results = [Result("n", "s", outcome, '<&"\x1b[31m\0]]>', 0.1) for outcome in ("fail", "skip", "warning", "pass")]
    assert len(ET.fromstring(junit(results, 'http://h/<&">')).findall("testsuite/testcase")) == 4


def test_every_check_has_a_name_of_its_own_and_says_where_its_rule_is_written() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(re.search(r"STAC|RFC \d+|OGC", check.source) for check in CHECKS)
