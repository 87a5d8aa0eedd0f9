"""What leaves the server: every byte of the archive from wherever it lies, and no byte that was not laid out."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import io
import random
import zipfile
import zlib

import pytest

from gateway.archive.content import BATCH_MEMBERS
from gateway.delivery import source as source_module
from gateway.delivery.transfer import Transfer
from gateway.hashing import Hashers
from gateway.storage import CanStream
from tests.archive.conftest import Cloud, Disk
from tests.archive.serving import ArchiveServer, Lying, content_of, received
from tests.delivery import answering

KIB = 1024
SIZES = (0, 1, 1000, 64 * KIB, 64 * KIB + 1, 700 * KIB, 0, 30, 3000 * KIB, 5)


class Marks(answering.Marks):
    """Marks for whichever transfer comes."""

    def of(self, transfer: Transfer) -> Marks:
        self.transfer = transfer
        return self


async def mixed(disk: Disk, cloud: Cloud, *, known: bool = True) -> tuple[list[Lying], dict[str, bytes]]:
    """Files of several sizes in both storages, and what the archive must hold."""
    files, holds = [], {}
    for number, size in enumerate(SIZES):
        for place in (disk, cloud):
            content = content_of(size, number)
            name = f"{type(place).__name__} {number}.bin"
            files.append(await place.put(name, content, known=known or number % 3 == 0))
            holds[name] = content
    return files, holds


def unpacked(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return {info.filename: opened.read(info) for info in opened.infolist()}


async def test_members_of_disks_and_of_object_stores_are_one_archive(
    server: ArchiveServer, disk: Disk, cloud: Cloud
) -> None:
    files, holds = await mixed(disk, cloud)
    served = server.serve(files, notice=b"one is missing")
    status, fields, body, promised = await received(server)
    assert status == 200
    assert unpacked(body) == holds | {"NOTICE.txt": b"one is missing"}
    assert promised == len(body) == served.layout.length
    assert fields["ETag"] == served.layout.etag
    assert fields["Accept-Ranges"] == "bytes"
    assert fields["Content-Type"] == "application/octet-stream"
    assert served.transfers[0].finished
    assert served.transfers[0].sent == len(body)
    assert served.shelf.open == 0
    assert served.shelf.most_open <= BATCH_MEMBERS


async def test_any_range_is_that_slice_of_the_whole(server: ArchiveServer, disk: Disk, cloud: Cloud) -> None:
    files, _ = await mixed(disk, cloud)
    server.serve(files)
    _, _, whole, length = await received(server)
    chance = random.Random(8)
    for _ in range(60):
        first = chance.randrange(length)
        last = min(first + chance.choice((0, 10, 1000, 200_000, length)), length - 1)
        status, _, body, _ = await received(server, fields={"Range": f"bytes={first}-{last}"})
        assert status == 206
        assert body == whole[first : last + 1]


async def test_members_are_opened_only_where_the_range_touches_them(server: ArchiveServer, disk: Disk) -> None:
    files = [await disk.put(f"{number}", content_of(100_000, number)) for number in range(50)]
    served = server.serve(files)
    status, _, body, _ = await received(server, fields={"Range": "bytes=2500000-2500009"})
    assert (status, len(body)) == (206, 10)
    assert served.shelf.opened <= 2
    status, _, body, _ = await received(server, fields={"Range": "bytes=-100"})
    assert (status, len(body)) == (206, 100)
    assert served.shelf.opened <= 2


async def test_without_crcs_the_length_is_exact_and_nothing_can_be_resumed(
    server: ArchiveServer, disk: Disk, cloud: Cloud
) -> None:
    files, holds = await mixed(disk, cloud, known=False)
    served = server.serve(files)
    status, fields, body, promised = await received(server, fields={"Range": "bytes=10-20", "If-None-Match": "*"})
    assert status == 200
    assert promised == len(body) == served.layout.length
    assert unpacked(body) == holds
    assert "ETag" not in fields
    assert "Last-Modified" not in fields
    assert fields["Accept-Ranges"] == "none"
    unknown = [index for index, file in enumerate(files) if file.crc32 is None and file.size]
    assert sorted(served.found) == unknown
    # What was found makes the archive one that can be resumed.
    fixed = [dataclasses.replace(file, crc32=served.found.get(index, file.crc32)) for index, file in enumerate(files)]
    server.serve(fixed)
    status, fields, body, _ = await received(server)
    assert unpacked(body) == holds
    assert "ETag" in fields


@pytest.mark.parametrize("known", [True, False])
async def test_an_allowance_bounds_records_and_members_alike(
    server: ArchiveServer, disk: Disk, cloud: Cloud, known: bool
) -> None:
    files, holds = await mixed(disk, cloud, known=known)
    served = server.serve(files)
    length = served.layout.length
    marks = Marks([1, 30, 31, 5000, 100_000, 3_000_000, length - 10, length])
    served.allowed = marks.of
    _, _, body, _ = await received(server)
    assert unpacked(body) == holds
    assert marks.left == []


async def test_an_allowance_that_ends_cuts_the_archive_there(server: ArchiveServer, disk: Disk, cloud: Cloud) -> None:
    files, _ = await mixed(disk, cloud)
    whole = server.serve(files)
    _, _, complete, _ = await received(server)
    whole.allowed = Marks([400_000]).of
    _, _, body, promised = await received(server)
    assert body == complete[:400_000]
    assert promised == whole.layout.length


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [100, 200 * KIB, 3000 * KIB])
@pytest.mark.parametrize("place", ["disk", "cloud"])
async def test_a_member_that_was_replaced_breaks_the_transfer(
    server: ArchiveServer, disk: Disk, cloud: Cloud, size: int, place: str, known: bool
) -> None:
    """Of the same size, so that nothing but its version tells."""
    first = await disk.put("first", content_of(300 * KIB))
    second = await (disk if place == "disk" else cloud).put("second", content_of(size), known=known)
    served = server.serve([first, second])
    _, _, whole, _ = await received(server)
    if place == "disk":
        path = disk.root / second.location
        path.rename(path.with_suffix(".old"))
        path.write_bytes(content_of(size, 1))
    else:
        cloud.server.store.put("bucket", second.location.removeprefix("bucket/"), content_of(size, 1))
    status, _, body, promised = await received(server)
    assert status == 200
    assert promised == len(whole)
    assert 300 * KIB <= len(body) < promised - size
    assert whole.startswith(body)
    assert not served.transfers[-1].finished
    assert served.transfers[-1].problem is not None
    assert served.shelf.open == 0


@pytest.mark.parametrize("size", [100, 200 * KIB])
async def test_a_member_whose_bytes_have_another_crc_is_never_sent_as_right(
    server: ArchiveServer, disk: Disk, size: int
) -> None:
    """The catalogue has a wrong CRC-32 of it. What is read here is seen; what leaves by sendfile the client sees."""
    file = await disk.put("file", content_of(size))
    server.serve([await disk.put("first", b"x" * 100_000), dataclasses.replace(file, crc32=12345)])
    _, _, body, promised = await received(server)
    if size <= 64 * KIB:
        assert len(body) < promised
    else:
        with zipfile.ZipFile(io.BytesIO(body)) as opened:
            assert opened.testzip() == "file"


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [1000, 600 * KIB])
async def test_a_member_that_is_proved_on_its_way_ends_only_if_it_has_its_checksum(
    server: ArchiveServer, disk: Disk, cloud: Cloud, size: int, known: bool, right: bool
) -> None:
    content = content_of(size)
    checksum = hashlib.sha256(content if right else b"other").hexdigest()
    with contextlib.closing(Hashers(1)) as hashers:
        for place in (disk, cloud):
            served = server.serve([await place.put("file", content, known=known)])
            served.shelf.begin_proof = lambda: hashers.proof("SHA-256", checksum)
            status, _, body, promised = await received(server)
            if right:
                assert unpacked(body) == {"file": content}
            else:
                assert status == 502 or 0 < len(body) < promised


async def test_a_disk_that_cannot_sum_has_its_bytes_read(
    server: ArchiveServer, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(3_000_000)
    file = await disk.put("file", content, known=False)
    monkeypatch.setattr(source_module, "SumsOnDisk", CanStream)
    served = server.serve([file])
    _, _, body, _ = await received(server)
    assert unpacked(body) == {"file": content}
    assert served.found == {0: zlib.crc32(content)}


async def test_what_the_catalogue_replaced_since_is_not_sent(server: ArchiveServer, disk: Disk) -> None:
    """Its file is fine, but is not the one that was laid out."""
    files = [await disk.put("one", content_of(100 * KIB)), await disk.put("two", content_of(100 * KIB, 2))]
    served = server.serve(files)
    served.shelf.files[1] = await disk.put("two", content_of(100 * KIB, 3))
    status, _, body, promised = await received(server)
    assert status == 200
    assert 100 * KIB <= len(body) < 110 * KIB < promised


async def test_a_first_member_that_is_gone_is_an_error_and_not_a_broken_archive(
    server: ArchiveServer, disk: Disk
) -> None:
    for size in (100, 100 * KIB):
        files = [await disk.put("gone", content_of(size)), await disk.put("there", b"x" * 300_000)]
        server.serve(files)
        (disk.root / files[0].location).unlink()
        assert (await received(server))[0] == 502


async def test_a_store_that_breaks_off_is_asked_for_the_rest(server: ArchiveServer, cloud: Cloud) -> None:
    content = content_of(3_000_000)
    for known in (True, False):
        server.serve([await cloud.put("large", content, known=known)])
        cloud.server.faults.reset_after(1_000_000)
        _, _, body, promised = await received(server)
        assert len(body) == promised
        assert unpacked(body) == {"large": content}


@pytest.mark.parametrize("known", [True, False])
async def test_a_store_that_fails_once_at_a_later_member_is_asked_again(
    server: ArchiveServer, disk: Disk, cloud: Cloud, known: bool
) -> None:
    files = [await disk.put("one", content_of(300_000)), await cloud.put("two", content_of(300_000, 2), known=known)]
    server.serve(files)
    cloud.server.faults.reset_before_head()
    _, _, body, _ = await received(server)
    assert unpacked(body) == {"one": content_of(300_000), "two": content_of(300_000, 2)}


async def test_a_client_that_goes_away_leaves_nothing_open(server: ArchiveServer, disk: Disk, cloud: Cloud) -> None:
    for place in (disk, cloud):
        served = server.serve([await place.put("large", content_of(20_000_000))])
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(b"GET /order.zip HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readexactly(100_000)
        writer.transport.abort()
        async with asyncio.timeout(10), server.settled:
            await server.settled.wait_for(served.transfers.__len__)
        assert not served.transfers[0].finished
        assert served.shelf.open == 0


async def test_an_archive_of_nothing_is_one(server: ArchiveServer) -> None:
    server.serve([])
    _, _, body, promised = await received(server)
    assert len(body) == promised == 22
    assert unpacked(body) == {}
