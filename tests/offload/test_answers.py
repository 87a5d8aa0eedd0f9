"""What the client gets does not tell who sent it: every answer through the proxy is the gateway's own."""

from __future__ import annotations

import datetime
import email.utils
import os
import time
from collections.abc import Set as AbstractSet

from tests.harness import OUTSIDER, SCIENTIST, Entry
from tests.offload.conftest import Answer, Fields, Pair

TEXT = b"0123456789" * 1000

NOTHING: AbstractSet[str] = frozenset()

OF_THE_CONNECTION: AbstractSet[str] = {"date", "server", "connection", "keep-alive", "server-timing"}
"""Fields of the server that the client is connected to, or of how the bytes come, not of the file."""

DIFFERENCES: dict[tuple[str, int], AbstractSet[str]] = {
    # nginx says Accept-Ranges with 200 only; a 206 tells by itself that ranges are served.
    ("nginx", 206): {"accept-ranges"},
}
"""Fields that an offloaded answer lacks, by proxy and status, and why that does no harm."""

SAID = (
    "Content-Type", "Content-Length", "Content-Disposition", "ETag", "Last-Modified", "Repr-Digest", "Digest",
    "Cache-Control", "Vary", "X-Content-Type-Options", "Content-Security-Policy", "Referrer-Policy", "X-Request-ID",
)  # fmt: skip


def of_the_file(answer: Answer, without: AbstractSet[str] = NOTHING) -> Fields:
    return sorted((name, value) for name, value in answer.fields if name not in OF_THE_CONNECTION | without)


async def compare(pair: Pair, path: str, fields: Fields, expected_status: int, *, method: str = "GET") -> str:
    """Ask both ways and compare; tells what became of the bytes at the gateway (``offloaded``, ``whole``, ``none``)."""
    request_id = pair.request_id()
    through = await pair.through(path, SCIENTIST, [*fields, request_id], method)
    outcome = (await pair.logged(request_id)).get("outcome", "none")
    direct = await pair.direct(path, SCIENTIST, [*fields, request_id], method)
    what = (pair.kind.name, method, fields)
    assert direct.status == expected_status, what
    assert through.status == direct.status, what
    assert through.body == direct.body, what
    without = DIFFERENCES.get((pair.kind.name, direct.status), NOTHING) if outcome == "offloaded" else NOTHING
    assert of_the_file(through) == of_the_file(direct, without), what
    assert not through.all("X-Accel-Redirect")
    assert not through.all("X-Sendfile")
    return str(outcome)


async def entry_for(pair: Pair, *, content: bytes = TEXT, age: int = 3600) -> Entry:
    """A file that was last changed ``age`` seconds ago, and so ingested."""
    entry = await pair.gateway.catalogue.file(content, asset="data.tif")
    then = int(time.time()) - age
    os.utime(entry.path, (then, then))
    found = entry.path.stat()
    await pair.gateway.catalogue.connection.execute(
        "UPDATE copies SET modified = $1, version = $2",
        datetime.datetime.fromtimestamp(then, datetime.UTC),
        f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}",
    )
    return entry


async def test_an_offloaded_answer_says_all_that_a_streamed_one_says_once(offloading: Pair) -> None:
    entry = await entry_for(offloading)
    assert await compare(offloading, entry.stac, [], 200) == "offloaded"
    answer = await offloading.through(entry.stac, SCIENTIST, [offloading.request_id(), ("Accept-Encoding", "gzip")])
    assert answer.body == TEXT
    for name in (*SAID, "Accept-Ranges"):
        assert len(answer.all(name)) == 1, name
    assert answer.all("Content-Length") == [str(len(TEXT))]
    assert answer.all("ETag") == [f'"{entry.checksum}"']
    assert not answer.all("Content-Encoding")


async def test_a_range_that_nginx_does_not_read_is_not_the_whole_file_for_the_price_of_a_byte(nginx: Pair) -> None:
    entry = await entry_for(nginx)
    answer = await nginx.through(entry.stac, SCIENTIST, [("Range", "bytes=0-0\t"), nginx.request_id()])
    _, charged = await nginx.gateway.usage(SCIENTIST)
    assert charged == len(answer.body) == 1


async def test_other_answers_are_the_same_too(offloading: Pair) -> None:
    """With a wish for another digest, shown inline, a public file without checksum, an empty one."""
    entry = await entry_for(offloading)
    inline = f"{entry.stac}?isContentInline=true"
    wish = [("Want-Repr-Digest", "sha-512=1"), ("Want-Digest", "SHA-256")]
    assert await compare(offloading, inline, wish, 200) == "offloaded"
    answer = await offloading.through(inline, SCIENTIST, wish)
    assert answer.all("Digest")
    assert not answer.all("Repr-Digest")
    assert answer.all("Content-Disposition")[0].startswith("inline")

    catalogue = offloading.gateway.catalogue
    await catalogue.grant("open", await catalogue.group("all", public=True))
    quicklook = await catalogue.file(
        TEXT, collection="open", asset="quick.png", data_type="THUMBNAIL", mime_type="text/html", checksum=False,
        recorded=False,
    )  # fmt: skip
    assert await compare(offloading, quicklook.stac, [], 200) == "offloaded"

    empty = await catalogue.file(b"", asset="empty")
    assert await compare(offloading, empty.stac, [], 200) == "whole"

    for who, status in [(OUTSIDER, 403), (None, 401)]:
        fields = [offloading.request_id()]
        through, direct = [await ask(entry.stac, who, fields) for ask in (offloading.through, offloading.direct)]
        assert through.status == direct.status == status
        assert through.body == direct.body
        assert of_the_file(through) == of_the_file(direct)


PLAIN_RANGES = [
    ("bytes=0-0", 206), ("bytes=0-9", 206), ("bytes=9990-", 206), ("bytes=0-", 206), ("bytes=-1", 206),
    ("bytes=-10000", 206), ("bytes=-20000", 206), ("bytes=9999-9999", 206), ("bytes=5-99999", 206),
    ("bytes=00-09", 206),
]  # fmt: skip
ODD_RANGES = [
    ("bytes=10000-", 416), ("bytes=-0", 416), ("bytes=5-4", 200), ("bytes=", 200), ("bytes=a-b", 200),
    ("lines=0-4", 200), ("bytes=0-4,10-14", 206), ("bytes=0-4,3-8", 206), ("bytes=10-14,0-4", 206),
    ("bytes=0-4,99999-", 206), ("bytes=99999-,-5", 206), ("bytes=0-9,0-", 200), ("bytes=0-4,", 206),
    ("bytes=,0-4", 206), ("bytes=0-4,,", 206), ("bytes= 0-4", 206), ("bytes=0-4 ,", 206), ("BYTES=0-4", 206),
    ("bytes=0-99999999999999999999999", 206), ("bytes=-99999999999999999999999", 206), ("bytes =0-4", 200),
    ("bytes=0-4;", 200), ("bytes=99999999999999999999999-", 416), ("bytes=0 - 4", 200), ("bytes=--4", 200),
]  # fmt: skip


async def test_every_range_is_answered_as_the_gateway_would(offloading: Pair) -> None:
    entry = await entry_for(offloading)
    for value, status in PLAIN_RANGES:
        assert await compare(offloading, entry.stac, [("Range", value)], status) == "whole", value
    for value, status in ODD_RANGES:
        await compare(offloading, entry.stac, [("Range", value)], status)
    await compare(offloading, entry.stac, [("Range", "bytes=0-4"), ("Range", "bytes=10-14")], 200)


async def test_a_range_that_the_gateway_ignores_is_not_taken_up_by_the_proxy(offloading: Pair) -> None:
    """It would, if it had the whole of a short answer before it began to send: so it depends on chance."""
    entry = await entry_for(offloading, content=b"0123456789")
    ignored: list[Fields] = [
        [("Range", "bytes=0-4;")],
        [("Range", "bytes=0-4,x")],
        [("Range", "bytes=0-9,0-")],
        [("Range", "bytes=0-4"), ("If-Range", f'W/"{entry.checksum}"')],
        [("Range", "bytes=0-4"), ("If-Range", '"stale"')],
    ]
    for fields in ignored * 8:
        await compare(offloading, entry.stac, fields, 200)


async def test_every_precondition_is_answered_as_the_gateway_would(offloading: Pair) -> None:
    entry = await entry_for(offloading)
    tag, stale = f'"{entry.checksum}"', '"stale"'
    modified = int(entry.path.stat().st_mtime)
    then, before, after = (email.utils.formatdate(modified + more, usegmt=True) for more in (0, -60, 60))
    asctime = datetime.datetime.fromtimestamp(modified, datetime.UTC).strftime("%a %b %e %H:%M:%S %Y")
    part = ("Range", "bytes=0-4")
    cases: list[tuple[Fields, int]] = [
        ([("If-None-Match", tag)], 304),
        ([("If-None-Match", f"W/{tag}")], 304),
        ([("If-None-Match", "*")], 304),
        ([("If-None-Match", f"{stale}, {tag}")], 304),
        ([("If-None-Match", stale)], 200),
        ([("If-None-Match", stale), ("If-Modified-Since", then)], 200),
        ([("If-Match", tag)], 200),
        ([("If-Match", "*")], 200),
        ([("If-Match", stale)], 412),
        ([("If-Match", f"W/{tag}")], 412),
        ([("If-Modified-Since", then)], 304),
        ([("If-Modified-Since", after)], 304),
        ([("If-Modified-Since", before)], 200),
        ([("If-Modified-Since", "yesterday")], 200),
        ([("If-Unmodified-Since", then)], 200),
        ([("If-Unmodified-Since", before)], 412),
        ([part, ("If-Match", tag)], 206),
        ([part, ("If-None-Match", tag)], 304),
        ([part, ("If-Unmodified-Since", then)], 206),
        ([part, ("If-Range", tag)], 206),
        ([part, ("If-Range", stale)], 200),
        ([part, ("If-Range", f"W/{tag}")], 200),
        ([part, ("If-Range", then)], 206),
        ([part, ("If-Range", asctime)], 206),
        ([part, ("If-Range", before)], 200),
        ([part, ("If-Range", after)], 200),
        ([part, ("If-Range", entry.checksum)], 200),
        ([("If-Range", tag)], 200),
        ([("If-Range", stale)], 200),
    ]
    for fields, status in cases:
        await compare(offloading, entry.stac, fields, status)
        if status < 400:
            await compare(offloading, entry.stac, fields, 200 if status == 206 else status, method="HEAD")
    assert await compare(offloading, entry.stac, [("If-Range", tag)], 200) == "offloaded"


async def test_a_file_dated_tomorrow_is_not_said_to_be(offloading: Pair) -> None:
    """Last-Modified must not lie after Date (RFC 9110 §8.8.2.1), and such a date binds no resume."""
    entry = await entry_for(offloading, age=-86400)
    answer = await offloading.through(entry.stac, SCIENTIST)
    shown, date = (email.utils.parsedate_to_datetime(*answer.all(name)) for name in ("Last-Modified", "Date"))
    assert shown <= date
    shown_now = answer.all("Last-Modified")[0]
    answer = await offloading.through(entry.stac, SCIENTIST, [("Range", "bytes=5-"), ("If-Range", shown_now)])
    assert (answer.status, answer.body) == (200, TEXT)
