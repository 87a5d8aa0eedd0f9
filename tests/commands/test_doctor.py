"""``gateway doctor`` as an operator runs it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gateway.storage import Stat
from tests.commands.support import BUCKET, Stand, ended, run, s3_storage, start, valkey
from tests.faults.hanging import PLUGIN, announce, come_back, hang
from tests.harness import SECRET
from tests.s3.strict import strict_s3

CONTENT = b"exactly this\n" * 100


async def test_lines_and_json_tell_the_same(stand: Stand) -> None:
    await stand.catalogue.file(CONTENT, item="line\nbreak \x1b[31m")
    config = stand.configure(stand.disk(), stand.disk(name="other"))
    lines = await run("doctor", "--config", config)
    assert lines.exit_code == 0
    subjects = [line[9:].partition(":")[0] for line in lines.output.splitlines()]
    assert list(dict.fromkeys(subjects)) == ["database", "redis", "identity.jwt", "storage disk", "storage other"]
    assert "ok       redis: appendonly no: after a restart counters are loaded from the ledger" in lines.output
    assert "\x1b" not in lines.output

    told = json.loads((await run("doctor", "--config", config, "--json")).output)
    assert told["healthy"] is True
    assert {finding["subject"]: finding["level"] for finding in told["findings"]}["storage disk"] == "ok"
    assert len(told["findings"]) == len(subjects)

    one = await run("doctor", "--config", config, "--storage", "other")
    assert "storage other" in one.output
    assert "storage disk" not in one.output


async def test_what_cannot_be_used_ends_with_another_status_than_a_problem(stand: Stand) -> None:
    config = stand.configure()
    unknown = await run("doctor", "--config", config, "--storage", "absent")
    assert (unknown.exit_code, "'absent' is none of disk" in unknown.output) == (2, True)
    origin = await run("doctor", "--config", config, "--origin", "www.example.org")
    assert (origin.exit_code, "https://www.example.org" in origin.output) == (2, True)
    config.write_text("[database]\n", encoding="utf-8")
    unusable = await run("doctor", "--config", config)
    assert (unusable.exit_code, "redis: is missing" in unusable.output) == (2, True)


@pytest.mark.parametrize(
    ("section", "setting", "scheme", "storage"),
    [
        ("redis", "url", "redis", "ok       storage disk: it can be read"),
        (
            "database",
            "dsn",
            "postgresql",
            "warning  storage disk: no copy could be tried: the catalogue does not answer",
        ),
    ],
)
async def test_a_neighbour_that_hangs_is_the_only_problem(
    stand: Stand, section: str, setting: str, scheme: str, storage: str
) -> None:
    await stand.catalogue.file(CONTENT)
    held = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    with valkey() as url:
        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            hanging: dict[str, object] = {setting: f"{scheme}://user:{SECRET}@127.0.0.1:{port}/0"}
            sections: dict[str, dict[str, object]] = {"redis": {"url": url}, section: hanging}
            config = stand.configure(**sections)
            done = await run("doctor", "--config", config, "--timeout", "2")
            for writer in held:
                writer.close()
    assert done.exit_code == 1
    assert [line for line in done.output.splitlines() if line.startswith("problem")] == [
        f"problem  {section}: did not answer within 2 s -> see that it runs, and that this machine reaches it"
    ]
    assert storage in done.output
    assert SECRET not in done.output


async def test_a_dead_mount_keeps_neither_the_others_nor_the_process(stand: Stand, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    config = stand.configure(stand.disk(name="dead", root=str(mount), plugin=PLUGIN), stand.disk())
    hang(mount)
    try:
        process = start("doctor", "--config", config, "--timeout", "2", PYTHONPATH=str(announce(tmp_path / "plugins")))
        status, output, errors = await ended(process)
    finally:
        come_back(mount)
    assert (status, errors) == (1, "")
    assert "problem  storage dead: did not answer within 2 s" in output
    assert "ok       storage disk: its directory can be looked into" in output


@pytest.mark.parametrize("trusted", [False, True])
async def test_certificates_are_verified_as_clients_do(stand: Stand, *, trusted: bool) -> None:
    async with strict_s3(tls=True) as strict:
        stored = strict.store.put(BUCKET, "esa/data", CONTENT)
        entry = await stand.catalogue.described(CONTENT)
        stat = Stat(len(CONTENT), stored.modified, stored.etag.strip('"'))
        await stand.catalogue.copy(entry, "store", f"{BUCKET}/esa/data", stat)
        assert strict.account.ca_file is not None
        environment = {"SSL_CERT_FILE": str(strict.account.ca_file)} if trusted else {}
        config = stand.configure(s3_storage(strict))
        status, output, errors = await ended(start("doctor", "--config", config, "--storage", "store", **environment))
    assert (status, errors) == (0 if trusted else 1, "")
    assert ("a signed URL gives the file to whoever has it" in output) == trusted
    assert ("its certificate is not one that this machine trusts" in output) != trusted
    assert "ok       storage store: it can be read" in output
    for secret in (strict.account.secret_access_key, strict.account.access_key_id, "Signature=", SECRET):
        assert secret not in output
