"""A name is the same file to the catalogue, the gateway and the proxy, whatever characters it has."""

from __future__ import annotations

from urllib.parse import quote

from tests.harness import SCIENTIST
from tests.offload.conftest import Pair

NAMES = [
    "plain.tif", "a", "a b", " a", "a ", "a+b", "a%20b", "a%2Bb", "a%", "%", "%zz", "a%00b", "a%2e%2e", "%2e%2e",
    "a?b", "a?", "?", "a#b", "#", "a&b=c", "a;b", ";", "a=b", "a,b", "a:b", "a@b", "@a", "a'b", 'a"b', '"a"', "a\\b",
    "a\\", "\\", "a*b", "a|b", "<a>", "[a]", "{a}", "a^b", "a`b", "$uri", "${uri}", "!a", "(a)", "~a", "-a", "_a",
    ".hidden", "..a", "a..", "a..b", "...", "a\tb", "a\nb", "a\r\nX-Evil: 1", "a\x7fb", "\x01", "é", "e\u0301",
    "日本語.tif", "\N{SATELLITE}\U0001f6f0.tif", "\u202egnp.exe", "\xa0", "x" * 255, "index.html", "a.gz",
    "plain.tif.gz", "A", "PLAIN.TIF",
]  # fmt: skip
"""Many differ only if decoded, cut or folded by somebody: each one's decoy is in the list, too."""

OFFLOADED_BY_ALL = {"plain.tif", "a", "~a", "-a", "_a", ".hidden", "..a", "a..", "a..b", "...", "index.html"}


async def test_every_name_leads_to_its_own_bytes(offloading: Pair) -> None:
    catalogue = offloading.gateway.catalogue
    entries = {name: await catalogue.file(f"the bytes of {name!r}".encode(), asset=name) for name in NAMES}
    for name, entry in entries.items():
        request_id = offloading.request_id()
        answer = await offloading.through(entry.regards, SCIENTIST, [request_id])
        assert (answer.status, answer.body) == (200, entry.content), name
        assert answer.all("ETag") == [f'"{entry.checksum}"'], name
        assert not answer.all("X-Evil"), name
        outcome = (await offloading.logged(request_id))["outcome"]
        if offloading.kind.field == "X-Accel-Redirect" or name in OFFLOADED_BY_ALL:
            assert outcome == "offloaded", name

    await catalogue.grant("a b%2f?c", await catalogue.group("science"))
    for item in ("x/y", "x%2Fy", "ü+;=&", "a b", "100%"):  # directories; the path of the request has them, too
        entry = await catalogue.file(item.encode(), collection="a b%2f?c", item=item, asset="é;1")
        answer = await offloading.through(entry.stac, SCIENTIST)
        assert (answer.status, answer.body) == (200, item.encode()), item


async def test_a_location_that_climbs_out_is_not_found(offloading: Pair) -> None:
    """In a catalogue that was tampered with: the gateway refuses before the proxy is told anything."""
    catalogue = offloading.gateway.catalogue
    secret = offloading.archive.parent / f"{offloading.archive.name}-secret"
    secret.write_bytes(b"do not show")
    try:
        entry = await catalogue.file(b"harmless", recorded=False, checksum=False)
        for location in (f"../{secret.name}", f"esa/../../{secret.name}", f"%2e%2e/{secret.name}", str(secret)):
            for written in (location, quote(location, safe="")):
                await catalogue.connection.execute("UPDATE copies SET location = $1", written)
                answer = await offloading.through(entry.stac, SCIENTIST)
                assert answer.status in (404, 503), written
                assert b"do not show" not in answer.body
    finally:
        secret.unlink()
