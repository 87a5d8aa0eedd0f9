"""The shipped nginx configuration: valid as it stands, and keeping what it promises."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.server import KEEPALIVE_SECONDS
from tests.conformance import nginx
from tests.conformance.conftest import Proxy, Stand, curl
from tests.conformance.http1 import Connection, serialize
from tests.harness import SCIENTIST, bearer

HUGE = 64 * 1024 * 1024


def fetch(proxy: Proxy, target: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """curl through the proxy's TLS, by HTTP/2 unless ``arguments`` say otherwise."""
    fields = [part for name, value in bearer(SCIENTIST).items() for part in ("-H", f"{name}: {value}")]
    command = [curl(), "-q", "-sS", "--path-as-is", "--cacert", str(proxy.certificate), *fields, *arguments]
    return subprocess.run([*command, f"{proxy.url}{target}"], capture_output=True, timeout=30, check=False)


def test_it_is_valid(tmp_path: Path) -> None:
    nginx.make_certificate(tmp_path)
    redirect, clear, tls = nginx.free_ports(3)
    text = nginx.deployed(tmp_path, gateway=("127.0.0.1", 8080), redirect=redirect, clear=clear, tls=tls)
    (tmp_path / "nginx.conf").write_text(text, encoding="utf-8")
    arguments = ["-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"]
    run = subprocess.run([nginx.program(), *arguments], capture_output=True, text=True, check=False, timeout=10)
    assert run.returncode == 0, run.stderr
    assert "[warn]" not in run.stderr


def test_idle_connections_end_before_the_gateway_ends_them() -> None:
    text = nginx.DEPLOYED.read_text(encoding="utf-8")
    upstream = text.partition("upstream gateway {")[2].partition("}")[0]
    seconds = int(upstream.partition("keepalive_timeout ")[2].partition("s;")[0])
    assert seconds < KEEPALIVE_SECONDS


def test_plain_http_is_sent_to_https(proxy: Proxy) -> None:
    with Connection(proxy.redirect) as connection:
        response = connection.exchange("GET", "/a%2Fb?c=%20d", ())
        assert response.status == 308
        assert response.get("Location") == "https://localhost/a%2Fb?c=%20d"


def test_paths_arrive_escape_for_escape(stand: Stand, proxy: Proxy) -> None:
    odd = "a/b//../%2F ü?#;=&"
    entry = stand.wait_for(stand.add(b"odd", item="odd", asset="file"))
    rename = stand.running.catalogue.connection.execute(
        "UPDATE files SET asset_key = $1 WHERE lower(checksum) = $2", odd, entry.checksum
    )
    stand.wait_for(rename)
    target = type(entry)(entry.product, entry.checksum, "restricted", "odd", odd, entry.path, b"").stac
    assert fetch(proxy, target).stdout == b"odd"
    assert fetch(proxy, entry.regards).stdout == b"odd"


def test_long_tokens_reach_the_gateway(proxy: Proxy, stand: Stand) -> None:
    with Connection(proxy.clear) as connection:
        response = connection.exchange("GET", stand.files["small"].stac, [("Authorization", f"Bearer {'a' * 8000}")])
        assert response.status == 401
        assert response.get("X-Request-ID")


def test_nothing_is_compressed_on_the_way(proxy: Proxy, stand: Stand) -> None:
    entry = stand.wait_for(stand.add(b"a" * 10_000, item="compressible", mime_type="text/html"))
    with Connection(proxy.clear) as connection:
        response = connection.exchange("GET", entry.stac, [*bearer(SCIENTIST).items(), ("Accept-Encoding", "gzip")])
        assert response.body == entry.content
        assert response.get("Content-Encoding") is None
        assert response.get("ETag") == f'"{entry.checksum}"'


def test_a_request_id_is_kept_if_it_is_sane(proxy: Proxy, stand: Stand) -> None:
    target, fields = stand.files["small"].stac, list(bearer(SCIENTIST).items())
    with Connection(proxy.clear) as connection:
        assert (
            connection.exchange("HEAD", target, [*fields, ("X-Request-ID", "ticket-7.a")]).get("X-Request-ID")
            == "ticket-7.a"
        )
        made = connection.exchange("HEAD", target, [*fields, ("X-Request-ID", "a b")]).get("X-Request-ID")
        assert made
        assert len(made) == 32


def test_the_access_log_holds_no_query(proxy: Proxy, stand: Stand) -> None:
    fetch(proxy, f"{stand.files['small'].stac}?secret=hidden", "-H", "X-Request-ID: logged-1")
    log, deadline = proxy.directory / "access.log", time.monotonic() + 20
    # nginx writes it after its answer.
    while "logged-1" not in log.read_text(encoding="utf-8") and time.monotonic() < deadline:
        time.sleep(0.05)
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    (line,) = [line for line in lines if line["request_id"] == "logged-1"]
    assert line["path"] == stand.files["small"].stac
    assert line["protocol"] == "HTTP/2.0"
    assert (line["status"], line["bytes"], line["completion"]) == (200, 1000, "OK")
    assert "hidden" not in log.read_text(encoding="utf-8")


def test_what_a_client_does_not_take_is_not_charged(stand: Stand, proxy: Proxy) -> None:
    """With nginx's buffering the gateway would see all of it taken at once."""
    entry = stand.wait_for(stand.add(bytes(HUGE), item="left"))
    _, before = stand.wait_for(stand.running.usage(SCIENTIST))
    with Connection(proxy.clear) as connection:
        connection.send(serialize("GET", entry.stac, list(bearer(SCIENTIST).items())))
        connection.peek()
        time.sleep(0.3)
    for _ in range(50):
        _, after = stand.wait_for(stand.running.usage(SCIENTIST))
        if after - before < HUGE:
            break
        time.sleep(0.1)
    assert 0 < after - before < HUGE / 2


@pytest.mark.parametrize(("version", "code"), [("--http1.1", 18), ("--http2", 92)])
def test_a_broken_transfer_is_broken_for_the_client_too(
    stand: Stand, proxy: Proxy, tmp_path: Path, version: str, code: int
) -> None:
    entry = stand.wait_for(stand.add(bytes(HUGE), item=f"broken-{code}"))
    target = tmp_path / "received"
    arguments = [version, "--limit-rate", "20M", "-o", str(target)]

    def cut() -> None:
        while not (target.exists() and target.stat().st_size):
            time.sleep(0.01)
        os.truncate(entry.path, HUGE // 2)

    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))
        cutting = pool.submit(cut)
        run = fetch(proxy, entry.stac, *arguments)
        cutting.result(10)
    assert run.returncode == code, run.stderr
    assert 0 < target.stat().st_size < HUGE
