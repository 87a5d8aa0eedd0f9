"""The Azure emulator Azurite, where it is installed (npm: azurite)."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import hmac
import os
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import requests

ACCOUNT = "devaccount"
VERSION = "2023-11-03"
_LISTENS = re.compile(r"listens on (http://\S+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Azurite:
    """A running one, with one account and one container."""

    url: str
    """Endpoint of the account."""
    key: str = dataclasses.field(repr=False)
    container: str = "container"

    def send(
        self, method: str, path: str, query: str = "", headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        """Send a request with a Shared Key, which must go well.

        Source: "Authorize with Shared Key" of the service's REST reference.
        """
        fields = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": VERSION, **(headers or {})}
        path = quote(path)
        canonical = "".join(f"{name}:{fields[name]}\n" for name in sorted(fields))
        parameters = "".join(f"\n{name}:{value}" for name, value in sorted(parse_qsl(query)))
        length = str(len(body)) if body else ""
        to_sign = (
            f"{method}\n\n\n{length}\n" + "\n" * 8 + f"{canonical}/{ACCOUNT}{urlsplit(self.url).path}{path}{parameters}"
        )
        fields["Authorization"] = f"SharedKey {ACCOUNT}:{signature(self.key, to_sign)}"
        url = f"{self.url}{path}" + (f"?{query}" if query else "")
        answer = requests.request(method, url, headers=fields, data=body or None, timeout=10)
        assert answer.ok, answer.text

    def put(self, name: str, content: bytes) -> None:
        """Put a blob into the container."""
        self.send("PUT", f"/{self.container}/{name}", headers={"x-ms-blob-type": "BlockBlob"}, body=content)


def signature(key: str, text: str) -> str:
    return base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()


def check_service_sas(key: str, url: str, resource: str) -> dict[str, str]:
    """See that ``url`` is signed for ``resource`` (``/blob/account/container/name``, not encoded); gives its fields.

    Source: "Create a service SAS" of the service's REST reference, version 2020-12-06 and later.
    """
    fields = dict(parse_qsl(urlsplit(url).query))
    head = [fields.get(name, "") for name in ("sp", "st", "se")]
    rest = ("si", "sip", "spr", "sv", "sr", "snapshot", "ses", "rscc", "rscd", "rsce", "rscl", "rsct")
    text = "\n".join([*head, resource, *(fields.get(name, "") for name in rest)])
    assert fields["sig"] == signature(key, text)
    return fields


@contextlib.contextmanager
def run_azurite(program: str, directory: Path) -> Iterator[Azurite]:
    """Run one on a free port with its files in ``directory``."""
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    arguments = ["--blobHost", "127.0.0.1", "--blobPort", "0", "--location", str(directory), "--skipApiVersionCheck"]
    environment = os.environ | {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"}
    process = subprocess.Popen(
        [program, *arguments, "--silent", "--disableTelemetry"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        found = next(filter(None, map(_LISTENS.search, process.stdout)))
        azurite = Azurite(f"{found[1]}/{ACCOUNT}", key)
        azurite.send("PUT", f"/{azurite.container}", "restype=container")
        yield azurite
    finally:
        process.terminate()
        process.communicate(timeout=10)
