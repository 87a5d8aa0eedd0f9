"""Archives that are compared are those of the files, and their lengths are known."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

from aiohttp.test_utils import TestClient, TestServer

from benchmarks.archive_app import create_app, lay_out, listed, write_archive, zipstream_of


async def test_every_server_serves_the_files(tmp_path: Path) -> None:
    root = tmp_path / "files"
    root.mkdir()
    for number, size in enumerate((0, 1000, 300_000)):
        (root / f"{number}.bin").write_bytes(random.Random(number).randbytes(size))
    expected = {path.name: path.read_bytes() for path in listed(root)}
    written = tmp_path / "known.zip"
    write_archive(lay_out(listed(root), known=True), listed(root), written)
    served = {"zipstream": b"".join(zipstream_of(root))}
    assert len(served["zipstream"]) == len(zipstream_of(root))
    async with TestClient(TestServer(create_app(root))) as client:
        for name in ("known.zip", "unknown.zip"):
            served[name] = await (await client.get(f"/{name}")).read()
    assert served["known.zip"] == written.read_bytes()
    assert len(served["unknown.zip"]) == lay_out(listed(root), known=False).length
    for archive in served.values():
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            assert {name: opened.read(name) for name in opened.namelist()} == expected
