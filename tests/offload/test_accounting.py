"""What the proxy sends is charged when it is handed over: the gateway does not see the bytes."""

from __future__ import annotations

from tests.harness import OUTSIDER, SCIENTIST
from tests.offload.conftest import Fields, Pair

TEXT = b"0123456789" * 1000


async def test_a_file_that_is_handed_over_is_charged_whole_and_once(offloading: Pair) -> None:
    gateway = offloading.gateway
    entry = await gateway.catalogue.file(TEXT)
    assert (await offloading.through(entry.stac, SCIENTIST)).body == TEXT
    assert await gateway.usage(SCIENTIST) == (1, len(TEXT))
    assert (await offloading.through(entry.stac, SCIENTIST)).body == TEXT
    assert await gateway.usage(SCIENTIST) == (1, len(TEXT))
    other = await gateway.catalogue.file(TEXT[:-1], asset="other")
    assert (await offloading.through(other.stac, SCIENTIST, [("Range", "bytes=10-19")])).status == 206
    # Ranges are not handed over: they cost what they are.
    assert await gateway.usage(SCIENTIST) == (2, len(TEXT) + 10)

    bodiless: list[tuple[str, Fields, int]] = [
        ("HEAD", [], 200),
        ("GET", [("If-None-Match", "*")], 304),
        ("GET", [("If-Match", '"stale"')], 412),
        ("GET", [("Range", "bytes=10000-")], 416),
    ]
    for method, fields, status in bodiless:
        assert (await offloading.through(entry.stac, SCIENTIST, fields, method)).status == status
    assert (await offloading.through(entry.stac, OUTSIDER)).status == 403
    assert await gateway.usage(SCIENTIST) == (2, len(TEXT) + 10)
    assert await gateway.usage(OUTSIDER) == (0, 0)


async def test_the_quota_stops_offloaded_downloads_too(offloading: Pair) -> None:
    gateway = offloading.gateway
    await gateway.catalogue.limit("user", SCIENTIST.email or "", downloads=1)
    first, second = [await gateway.catalogue.file(TEXT + name, asset=name.decode()) for name in (b"1", b"2")]
    assert (await offloading.through(first.stac, SCIENTIST)).status == 200
    refused = await offloading.through(second.stac, SCIENTIST)
    assert refused.status == 429
    assert not refused.all("Repr-Digest")
    assert await gateway.usage(SCIENTIST) == (1, len(first.content))
