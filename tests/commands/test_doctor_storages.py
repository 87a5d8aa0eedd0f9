"""What the doctor finds of storages: directories, and a strict S3."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path

import pytest

from gateway.config import load
from gateway.doctor.findings import Finding
from gateway.doctor.signed_urls import Clients
from gateway.doctor.storages import look_at_storage
from gateway.storage import Stat
from tests.commands.support import BUCKET, PUBLIC_URL, Stand, findings, problems, s3_storage, warnings
from tests.s3.strict import CorsRule, StrictS3, strict_s3

CONTENT = b"exactly this\n" * 100
CLIENTS = Clients(PUBLIC_URL, None, 5)
EXPOSED = ("Content-Disposition", "Content-Range", "ETag")


async def look(config: Path, clients: Clients = CLIENTS, storage: int = 0) -> list[Finding]:
    loaded = load(config)
    return await findings(look_at_storage(loaded.storage[storage], loaded, clients))


async def put(stand: Stand, strict: StrictS3, content: bytes = CONTENT) -> str:
    """Put an object, with its rows in the catalogue; gives its location."""
    stored = strict.store.put(BUCKET, "esa/data", content)
    entry = await stand.catalogue.described(content)
    await stand.catalogue.copy(
        entry, "store", f"{BUCKET}/esa/data", Stat(len(content), stored.modified, stored.etag.strip('"'))
    )
    return f"{BUCKET}/esa/data"


async def test_a_directory_in_order_has_nothing_to_change(stand: Stand) -> None:
    await stand.catalogue.file(CONTENT)
    found = await look(stand.configure())
    assert {finding.level for finding in found} == {"ok"}, found
    assert [finding.text for finding in found] == [
        "plug-in 'local': opens",
        "its directory can be looked into",
        "'esa/restricted/item/data' is there",
        "it can be read",
    ]


async def test_options_that_do_not_hold_are_a_problem_of_that_storage(stand: Stand) -> None:
    nowhere = stand.disk(root="/nowhere/at/all")
    assert problems(await look(stand.configure(nowhere)))[0].startswith("root: /nowhere/at/all is not a directory")
    absent = stand.disk(plugin="absent")
    assert "is not installed" in problems(await look(stand.configure(absent)))[0]


async def test_without_a_copy_nothing_is_tried_and_that_is_said(stand: Stand) -> None:
    (text,) = warnings(await look(stand.configure()))
    assert "no online copy in it" in text
    await stand.catalogue.file(CONTENT)
    other = stand.disk(tenants=["cnes"])
    (text,) = warnings(await look(stand.configure(other)))
    assert text == "serves none of the newest copies, as 'esa/restricted/item/data' of tenant 'esa'"


async def test_without_the_catalogue_nothing_is_tried_and_that_is_said(stand: Stand) -> None:
    config = stand.configure(database={"dsn": "postgresql://user:hush@127.0.0.1:1/x"})
    (text,) = warnings(await look(config))
    assert text == "no copy could be tried: the catalogue does not answer"


async def test_copies_that_are_gone_or_changed(stand: Stand) -> None:
    entry = await stand.catalogue.file(CONTENT)
    entry.path.write_bytes(b"something else")
    (text,) = warnings(await look(stand.configure()))
    assert "was changed since it was ingested" in text
    entry.path.unlink()
    assert "is not there" in problems(await look(stand.configure()))[0]


async def test_a_storage_that_serves_every_tenant_of_several_is_a_hint(stand: Stand) -> None:
    await stand.catalogue.file(CONTENT)
    await stand.catalogue.tenant("cnes")
    (text,) = warnings(await look(stand.configure()))
    assert text.startswith("serves every tenant, and there are 2")
    for fitting in (stand.disk(prefixes=["{tenant}/"]), stand.disk(tenants=["esa"])):
        assert not warnings(await look(stand.configure(fitting)))


async def test_settings_that_the_storage_cannot_follow(stand: Stand) -> None:
    await stand.catalogue.file(CONTENT)
    found = warnings(await look(stand.configure(stand.disk(delivery="redirect", type="NEARLINE"))))
    assert [text.partition(":")[0] for text in found] == [
        "delivery 'redirect' has no effect",
        "type 'NEARLINE', but it restores nothing",
    ]


async def test_an_object_store_in_order_has_nothing_to_change(stand: Stand, strict: StrictS3) -> None:
    location = await put(stand, strict)
    config = stand.configure(s3_storage(strict), api={"public_url": "http://data.example.org"})
    strict.store.set_cors(BUCKET, CorsRule(["http://data.example.org"], ["GET"], ["range"], EXPOSED))
    found = await look(config, Clients("http://data.example.org", None, 5))
    assert {finding.level for finding in found} == {"ok"}, found
    assert [finding.text for finding in found] == [
        "plug-in 's3': streams, signs URLs, restores",
        f"'{location}' is there",
        "it can be read",
        f"signed URLs lead to {strict.account.endpoint}, another host than the gateway's",
        "a signed URL gives the file to whoever has it, by ranges",
        "without a signature it answers 403 AccessDenied, to a changed one 403 SignatureDoesNotMatch",
        "signed URLs work for 60 s, and the clock of the storage agrees with ours",
        "pages of http://data.example.org may fetch from it, and see Content-Disposition, Content-Range, ETag",
    ]
    for request in strict.requests:
        assert request.field("Authorization") is None
    reads = sum(request.sent for request in strict.requests if request.method == "GET")
    assert reads < 2 * 1024 + 8 * 1024


async def test_credentials_that_do_not_hold(stand: Stand, strict: StrictS3) -> None:
    await put(stand, strict)
    config = stand.configure(s3_storage(strict, secret_access_key="another"))
    found = await look(config)
    (text,) = problems(found)
    assert "cannot be looked at" in text
    for finding in found:
        assert "another" not in f"{finding}".replace("another host", "")
        assert strict.account.access_key_id not in f"{finding}"


async def test_archived_objects(stand: Stand, strict: StrictS3) -> None:
    await put(stand, strict)
    strict.store.find(BUCKET, "esa/data").storage_class = "GLACIER"
    assert "it cannot be read before it is restored" in warnings(await look(stand.configure(s3_storage(strict))))


@pytest.mark.parametrize(
    ("ahead", "level", "part"),
    [
        (0, "ok", "agrees with ours"),
        (30, "warning", "the clock of the storage is 30 s ahead of ours"),
        (-30, "warning", "the clock of the storage is 30 s behind ours"),
        (100, "problem", "the clock of the storage is 100 s ahead of ours"),
    ],
)
async def test_clocks_that_differ_are_measured_against_the_lifetime(
    stand: Stand, ahead: int, level: str, part: str
) -> None:
    def clock() -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=ahead)

    async with strict_s3(clock=clock) as strict:
        await put(stand, strict)
        found = await look(stand.configure(s3_storage(strict)))
    (finding,) = [finding for finding in found if "signed URLs work for" in finding.text]
    assert (finding.level, part in finding.text) == (level, True), finding
    assert any("answered 403" in text for text in problems(found)) == (ahead == 100)


RULES = [
    (None, "the preflight request is refused (403 AccessForbidden); the answer does not allow the origin"),
    (CorsRule(["https://www.example.org"], exposed=EXPOSED), "the preflight request is refused"),
    (CorsRule([PUBLIC_URL], exposed=EXPOSED), "the preflight request is refused"),
    (CorsRule([PUBLIC_URL], headers=["range"]), "Content-Disposition, Content-Range, ETag cannot be seen"),
    (CorsRule(["*"], headers=["*"], exposed=EXPOSED[:2]), "ETag cannot be seen"),
    (CorsRule(["*"], headers=["*"], exposed=EXPOSED), ""),
]
"""Rules of a bucket, and what a page lacks with them."""


async def test_cross_origin_rules_are_tried_as_a_browser_does(stand: Stand, strict: StrictS3) -> None:
    await put(stand, strict)
    for rule, lack in RULES:
        strict.store.set_cors(BUCKET, *([rule] if rule else []))
        (found,) = [it for it in await look(stand.configure(s3_storage(strict))) if it.text.startswith("pages of")]
        assert (found.level, lack in found.text) == ("warning" if lack else "ok", True), found


async def test_the_cross_origin_rules_that_are_proposed_are_enough(stand: Stand, strict: StrictS3) -> None:
    await put(stand, strict)
    config = stand.configure(s3_storage(strict))
    (found,) = [finding for finding in await look(config) if finding.text.startswith("pages of")]
    (proposed,) = json.loads(found.remedy.partition(": ")[2])["CORSRules"]
    names = ("AllowedOrigins", "AllowedMethods", "AllowedHeaders", "ExposeHeaders", "MaxAgeSeconds")
    strict.store.set_cors(BUCKET, CorsRule(*(proposed[name] for name in names)))
    assert [finding.level for finding in await look(config) if finding.text.startswith("pages of")] == ["ok"]


async def test_pages_of_another_origin_than_the_gateways_come_without_a_name(stand: Stand, strict: StrictS3) -> None:
    """A redirect across origins makes browsers send ``Origin: null``."""
    await put(stand, strict)
    strict.store.set_cors(BUCKET, CorsRule(["https://www.example.org"], headers=["*"], exposed=EXPOSED))
    clients = dataclasses.replace(CLIENTS, origin="https://www.example.org")
    (found,) = [it for it in await look(stand.configure(s3_storage(strict)), clients) if it.text.startswith("pages of")]
    assert found.level == "warning"
    assert '"AllowedOrigins": ["*"]' in found.remedy
    assert "null" in {request.field("Origin") for request in strict.requests}


@pytest.mark.parametrize(
    ("public_url", "level"),
    [
        ("https://data.example.org", "ok"),
        ("ENDPOINT", "problem"),
        ("http://127.0.0.1:1", "warning"),
        (None, "warning"),
    ],
)
async def test_signed_urls_must_lead_to_another_host(
    stand: Stand, strict: StrictS3, public_url: str | None, level: str
) -> None:
    await put(stand, strict)
    public_url = strict.account.endpoint if public_url == "ENDPOINT" else public_url
    found = await look(stand.configure(s3_storage(strict)), Clients(public_url, None, 5))
    assert [finding.level for finding in found if "signed URLs lead to" in finding.text] == [level]
