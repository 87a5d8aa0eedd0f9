"""Thousands of hostile file names in the catalogue: every answer is sound, and names a file that harms nobody."""

from __future__ import annotations

import contextlib
import os
import random
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

from gateway.http.disposition import safe_filename
from gateway.text import is_storable
from tests.conformance.conftest import Stand
from tests.conformance.http1 import Connection, Response, serialize
from tests.harness import SCIENTIST, Entry, bearer

COUNT = 5_000 if os.environ.get("GATEWAY_TEST_FULL") else 2_000
CONNECTIONS = 4
BATCH = 25
"""Requests that are sent on a connection before their answers are read."""
LONG = 10 * 1024

PIECES = {
    "controls": [*map(chr, range(1, 32)), *map(chr, range(0x7F, 0xA0)), "\r\n", "\n\n"],
    "header injection": ["\r\nSet-Cookie: a=b", "\r\n\r\n<script>", "\n Folded", "\r", "\u2028X: y", "\x85X: y"],
    "delimiters": ['"', '\\"', "'", ";", "=", ",", "%", "%22", "%0d%0a", "\\", "`", "$(id)", "|", "&", "*", "?", "<>"],
    "parameters": [
        '"; filename="evil.exe',
        "; filename*=UTF-8''evil.exe",
        "filename*0=a; filename*1=b",
        "=?UTF-8?B?YQ==?=",
    ],
    "paths": ["/", "..", "../../etc/passwd", "C:\\", "\\\\host\\share", "~", "a:stream", ".", "/dev/null", "\uff0f"],
    "devices": ["CON", "nul", "COM1", "LPT9.txt", "AUX ", "CONIN$", "COM¹"],
    "direction": ["\u202e", "\u202d", "\u2066", "\u2069", "\u200f", "\u061c", "fdp.exe"],
    "right to left": ["صورة", "הדמיה", "تصویر\u200cها", "٢٠٢٦"],
    "emoji": ["🛰️", "👩\u200d🚀", "🇫🇷", "1\ufe0f\u20e3", "\U0010ffff", "\U000e0041"],
    "marks": ["e\u0301", "\u0301" * 9, "Z̸̢͘a", "\u200b", "\ufeff", "\u00ad", "\ufff9", "\ufffd"],
    "letters": ["Île", "北京", "Ω", "ß", "ﬁ", "℀", "½", "Ａ", "ﷺ"],
    "plain": ["S2A_MSIL2A", "report", ".tif", ".tar.gz", " ", "  ", "-", "_", "0"],
    "long": ["x" * LONG, "é" * (LONG // 2), "🛰" * (LONG // 4), "." * LONG, '"' * LONG, "\r\n" * (LONG // 2)],
}

VALUE = re.compile(
    r"""attachment; filename="((?:[ !#-$&-\[\]-~]|%(?![0-9A-Fa-f]{2}))+)\""""
    r"""(?:; filename\*=UTF-8''((?:[!#$&+.^_`|~0-9A-Za-z-]|%[0-9A-F]{2})+))?"""
)
"""RFC 6266 §4.1 with one quoted-string, in which nothing needs a backslash and nothing looks percent-encoded, and one
ext-value of RFC 8187 §3.2.1."""
FORBIDDEN = set('/\\:*?"<>|\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069')
DEVICE = re.compile(r"(CON|PRN|AUX|NUL|COM[0-9¹²³]|LPT[0-9¹²³]) *(\.|\Z)", re.IGNORECASE)


def hostile_names(count: int) -> Iterator[str]:
    """The pieces one by one, then pieces and arbitrary characters put together; what PostgreSQL can store."""
    alone = [piece for pieces in PIECES.values() for piece in pieces]
    yield ""
    yield from alone
    source = random.Random(20261120)
    for _ in range(count - 1 - len(alone)):
        kinds = source.choices(
            [*PIECES, "any"], [1 if kind == "long" else 12 for kind in PIECES] + [12], k=source.randint(1, 6)
        )
        yield "".join(_any(source) if kind == "any" else source.choice(PIECES[kind]) for kind in kinds)


def _any(source: random.Random) -> str:
    codes = (source.randrange(1, source.choice([0x80, 0x800, 0x10000, 0x110000])) for _ in range(source.randint(1, 8)))
    return "".join(character for character in map(chr, codes) if is_storable(character))


async def fill(stand: Stand, names: list[str]) -> Entry:
    """A file for each of ``names``, all with the same bytes."""
    entry = await stand.add(b"all the same", item="names")
    connection = stand.running.catalogue.connection
    (file,) = await connection.fetch("SELECT * FROM files WHERE lower(checksum) = $1", entry.checksum)
    (copy,) = await connection.fetch("SELECT * FROM copies WHERE file_id = $1", file["file_id"])
    same = [name for name in dict(file) if name not in ("file_id", "asset_key", "file_name")]
    records = [(f"{number}", "", *(file[name] for name in same)) for number in range(len(names))]
    await connection.copy_records_to_table("files", records=records, columns=["asset_key", "file_name", *same])
    await connection.executemany(
        "UPDATE files SET file_name = $1 WHERE asset_key = $2 AND product_id = $3",
        [(name, f"{number}", file["product_id"]) for number, name in enumerate(names)],
    )
    await connection.execute(
        "INSERT INTO copies (file_id, storage, location, state, size, modified, version) "
        "SELECT f.file_id, c.storage, c.location, c.state, c.size, c.modified, c.version "
        "FROM files f, copies c WHERE f.product_id = $1 AND f.file_id <> $2 AND c.copy_id = $3",
        file["product_id"],
        file["file_id"],
        copy["copy_id"],
    )
    return entry


def test_any_file_name_gives_a_sound_answer(stand: Stand) -> None:
    names = list(hostile_names(COUNT))
    assert len(names) == COUNT
    entry = stand.wait_for(fill(stand, names))
    target = entry.stac.removesuffix(entry.asset)
    lines = list(bearer(SCIENTIST).items())
    methods = ["GET" if number % 10 == 0 else "HEAD" for number in range(COUNT)]
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Connection(stand.address)) for _ in range(CONNECTIONS)]
        for start in range(0, COUNT, BATCH * CONNECTIONS):
            shares = [range(start + share, start + BATCH * CONNECTIONS, CONNECTIONS) for share in range(CONNECTIONS)]
            for connection, share in zip(connections, shares, strict=True):
                connection.send(b"".join(serialize(methods[number], f"{target}{number}", lines) for number in share))
            for connection, share in zip(connections, shares, strict=True):
                for number in share:
                    # The reading itself refuses any byte in a header that is not printable ASCII.
                    response = connection.receive(methods[number])
                    assert response.status == 200
                    assert not connection.is_closing
                    sound_name(response, names[number])
                assert connection.surplus == b""


def sound_name(response: Response, name: str) -> None:
    value = response.get("Content-Disposition")
    assert value is not None
    found = VALUE.fullmatch(value)
    assert found, value
    fallback, extended = found.groups()
    given = fallback if extended is None else unquote(extended, errors="strict")
    assert given == safe_filename(name)
    for shown in (given, fallback):
        assert shown
        assert len(shown.encode()) <= 255
        assert not FORBIDDEN & set(shown)
        assert not DEVICE.match(shown)
        assert shown.strip(". ") == shown
        assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in shown)
