"""The processes of an OpenStack Swift with its S3 API: rings, one process per server, and nothing left behind.

``python -m tests.s3.swift_processes PARENT DIRECTORY`` reads a secret key from the environment variable SWIFT_SECRET,
writes one line of JSON when all servers answer (``{"endpoint", "access_key_id"}``) or cannot (``{"error"}``), and ends
as `gateway.embedded.supervisor` does. It is a program of its own since Swift's eventlet must not get into a process
that runs asyncio.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkProcess
from pathlib import Path

from eventlet.greenio import GreenSocket
from swift.account import server as _account
from swift.common.middleware import catch_errors, copy, slo, tempauth
from swift.common.middleware.s3api import s3api
from swift.common.ring import RingBuilder
from swift.common.wsgi import check_config, run_server
from swift.container import server as _container
from swift.obj import server as _object
from swift.proxy import server as _proxy

from gateway.embedded.directory import remove
from gateway.embedded.processes import LaunchError, dies_with_parent
from gateway.embedded.servers import tail
from gateway.embedded.supervisor import PARENT_CHECK, START_TIMEOUT, DismissedError, Watch, report

LOADED = (_account, _container, _object, _proxy, catch_errors, copy, s3api, slo, tempauth)
"""Loaded once, before the servers fork off: it takes most of the start, and the memory is shared."""
BACKENDS = ("account", "container", "object")
NAMES = (*BACKENDS, "proxy")
ACCOUNT, USER = "test", "tester"
HASH_SUFFIX = "gateway"
"""What Swift hashes with a name to find the place of its files."""
DEVICE = "disk"
LOG = "swift.log"

COMMON = """
[DEFAULT]
swift_dir = {directory}
devices = {directory}/devices
mount_check = false
fallocate_reserve = 0
bind_ip = 127.0.0.1
bind_port = {port}
log_level = ERROR
log_udp_host = 127.0.0.1
log_udp_port = {log_port}
# A machine that is busy with other things makes for no 503.
node_timeout = 30
conn_timeout = 10
container_update_timeout = 10

[pipeline:main]
pipeline = {pipeline}

[app:{name}-server]
use = egg:swift#{name}
"""
SPECIFIC = {
    # An object that is made large by a hole in its file has no MD5 that anybody would wait for.
    "object": "etag_validate_pct = 0",
    "proxy": """
account_autocreate = true

[filter:s3api]
use = egg:swift#s3api
storage_domain = s3.localhost

[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{user} = {secret} .admin

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:copy]
use = egg:swift#copy

[filter:slo]
use = egg:swift#slo
""",
}
PIPELINE = "catch_errors s3api tempauth copy slo proxy-server"


def main() -> None:
    """Run until nobody wants the servers any more."""
    parent, directory = sys.argv[1:]
    try:
        serve(Watch(int(parent)), Path(directory), os.environ.pop("SWIFT_SECRET"))
    except DismissedError:
        pass
    except (LaunchError, OSError) as error:
        report({"error": str(error)})


def serve(watch: Watch, directory: Path, secret: str) -> None:
    """Run the four servers until the watch ends it."""
    fork = multiprocessing.get_context("fork")
    children: list[ForkProcess] = []
    try:
        with contextlib.ExitStack() as stack:
            # They listen before anything else runs: nobody can take a port away, and no early client is refused.
            listeners = {name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in NAMES}
            nobody = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            nobody.bind(("127.0.0.1", 0))
            directory.mkdir(mode=0o700)
            configure(directory, {name: port(listener) for name, listener in listeners.items()}, port(nobody), secret)
            ready = {name: fork.Event() for name in NAMES}
            die_with_us = dies_with_parent(signal.SIGKILL)
            for name in NAMES:
                child = fork.Process(target=run, args=(name, directory, listeners, ready[name].set, die_with_us))
                child.start()
                children.append(child)

            def all_answer() -> bool:
                if any(child.exitcode is not None for child in children):
                    raise LaunchError(f"a server of Swift ended as it started:\n{tail(directory / LOG)}")
                return all(event.is_set() for event in ready.values())

            watch.until(all_answer, directory / LOG, time.monotonic() + START_TIMEOUT)
            endpoint = f"http://127.0.0.1:{port(listeners['proxy'])}"
            report({"endpoint": endpoint, "access_key_id": f"{ACCOUNT}:{USER}"})
            while True:
                watch.pause(PARENT_CHECK)
    finally:
        for child in children:
            child.kill()  # Nothing of it is kept.
            child.join()
        remove(directory)


def port(bound: socket.socket) -> int:
    """The port a socket is bound to."""
    number: int = bound.getsockname()[1]
    return number


def configure(directory: Path, ports: Mapping[str, int], log_port: int, secret: str) -> None:
    """Write the settings of all servers, and where each will be found.

    ``log_port`` is a UDP port that nobody reads: Swift writes to the machine's own log unless it has another.
    """
    (directory / "swift.conf").write_text(f"[swift-hash]\nswift_hash_path_suffix = {HASH_SUFFIX}\n")
    for name in NAMES:
        pipeline = PIPELINE if name == "proxy" else f"{name}-server"
        text = COMMON.format(directory=directory, port=ports[name], log_port=log_port, pipeline=pipeline, name=name)
        text += SPECIFIC.get(name, "").format(account=ACCOUNT, user=USER, secret=secret)
        settings = directory / f"{name}.conf"
        settings.touch(mode=0o600)
        settings.write_text(text)
    (directory / "devices" / DEVICE).mkdir(parents=True)
    for name in BACKENDS:
        # 2 partitions, 1 replica, and it may be moved at once.
        builder = RingBuilder(1, 1, 0)
        builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": ports[name], "device": DEVICE, "weight": 1})
        builder.rebalance()
        builder.get_ring().save(str(directory / f"{name}.ring.gz"))


def run(
    name: str,
    directory: Path,
    listeners: Mapping[str, socket.socket],
    tell_ready: Callable[[], None],
    die_with_parent: Callable[[], None] | None,
) -> None:
    """Be the server ``name``, in a process of its own."""
    if die_with_parent:
        die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    with (directory / LOG).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    for other, listener in listeners.items():
        if other != name:
            listener.close()
    # What swift.common.wsgi.run_wsgi() does, except that the socket is here already.
    conf, logger, global_conf, _ = check_config(str(directory / f"{name}.conf"), f"{name}-server", verbose=True)
    run_server(conf, logger, GreenSocket(listeners[name]), global_conf=global_conf, ready_callback=tell_ready)


if __name__ == "__main__":
    main()
