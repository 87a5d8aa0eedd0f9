"""Lines to paste into a shell: each shows something the gateway does."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import cast
from urllib.parse import quote

from gateway.demo.accounts import ADMIN, LIMITED, LIMITED_DOWNLOADS, OUTSIDER, SCIENTIST, UNLICENSED, Account
from gateway.demo.catalogue import LICENSED, OPEN

File = Mapping[str, object]
"""One of ``files`` of `gateway.demo.listing.to_json`."""

SHOW_ANSWER = "-sS -i -w '\\n'"
"""Options that show headers and body, and end the line."""


def curl_lines(listing: Mapping[str, object]) -> str:
    """A shell text of curl commands, with a comment above each, for what `gateway.demo.listing.to_json` returned.

    It begins with the tokens as variables. What the catalogue has no file to show with is left out.
    """
    tokens = cast("Mapping[str, str]", listing["tokens"])
    every = [file for file in cast("list[File]", listing["files"]) if file["data_type"] == "RAWDATA" and file["size"]]
    every.sort(key=lambda file: cast("int", file["size"]))
    data = [file for file in every if not file["nearline"]]
    lines = [f"{name.upper()}={shlex.quote(token)}" for name, token in tokens.items()]

    restricted = _first(data, lambda file: file["collection"] not in {OPEN, LICENSED})
    if restricted is not None:
        lines += _download(restricted) + _forbidden(restricted) + _head(restricted) + _stac(restricted)
    licensed = _first(data, lambda file: file["collection"] == LICENSED)
    if licensed is not None:
        lines += _licence(licensed)
    free = _first(data, lambda file: file["collection"] == OPEN)
    if free is not None:
        lines += _anonymous(free, str(listing["tenant"]))
    if data and data[-1]["size"] != 1:
        lines += _resume(data[-1])
    archived = _first(every, lambda file: file["nearline"] is True)
    if archived is not None:
        lines += _restore(archived)
    lines += _quota([file for file in data if file["collection"] != LICENSED])
    return "\n".join(lines) + "\n"


def _first(files: list[File], fits: Callable[[File], bool]) -> File | None:
    return next((file for file in files if fits(file)), None)


def _address(file: File) -> str:
    return str(file["regards_url"] or file["stac_url"])


def _curl(options: str, account: Account | None, url: str) -> str:
    bearer = "" if account is None else f'-H "Authorization: Bearer ${account.name.upper()}" '
    return f"curl {options} {bearer}{shlex.quote(url)}"


def _download(file: File) -> list[str]:
    return [
        "",
        "# The scientist downloads a restricted file, under the name that the gateway gives it.",
        _curl("-sS -OJ", SCIENTIST, _address(file)),
    ]


def _forbidden(file: File) -> list[str]:
    return ["", "# The outsider may not: 403.", _curl(SHOW_ANSWER, OUTSIDER, _address(file))]


def _head(file: File) -> list[str]:
    return [
        "",
        "# HEAD: all that a download would say, and nothing is counted.",
        _curl("-sS -I", ADMIN, _address(file)),
    ]


def _stac(file: File) -> list[str]:
    return [
        "",
        "# The same file by its STAC address, and whether all of it came.",
        _curl("-sS -o stac.download", SCIENTIST, str(file["stac_url"])),
        _check(file, "stac.download"),
    ]


def _licence(file: File) -> list[str]:
    return [
        "",
        "# Who has not accepted the licence gets 423, with the links to read and to accept it.",
        _curl(SHOW_ANSWER, UNLICENSED, _address(file)),
    ]


def _anonymous(file: File, tenant: str) -> list[str]:
    return [
        "",
        "# Open data without an account: the tenant stands in the query.",
        _curl("-sS -OJ", None, f"{_address(file)}?scope={quote(tenant, safe='')}"),
    ]


def _resume(file: File) -> list[str]:
    half = cast("int", file["size"]) // 2
    return [
        "",
        "# A download that broke in the middle goes on where it stopped.",
        _curl(f"-sS -r 0-{half - 1} -o resumed.download", SCIENTIST, _address(file)),
        _curl("-sS -C - -o resumed.download", SCIENTIST, _address(file)),
        _check(file, "resumed.download"),
    ]


def _restore(file: File) -> list[str]:
    return [
        "",
        "# A file on tape: the first answer is 503, says when to come back, and has the file restored.",
        _curl(SHOW_ANSWER, SCIENTIST, _address(file)),
        "# Who lets curl try again gets it as soon as it is there.",
        _curl("-sS -f --retry 20 -o archived.download", SCIENTIST, _address(file)),
        _check(file, "archived.download"),
    ]


def _check(file: File, name: str) -> str:
    line = shlex.quote(f"{file['sha256']}  {name}")
    return f"echo {line} | sha256sum -c"


def _quota(files: list[File]) -> list[str]:
    """One download more than the account `LIMITED` has; the contents differ, for the same one again counts once."""
    distinct = {file["sha256"]: shlex.quote(_address(file)) for file in files}
    urls = list(distinct.values())[: LIMITED_DOWNLOADS + 1]
    if len(urls) <= LIMITED_DOWNLOADS:
        return []
    get = f'curl -sS -o /dev/null -w \'%{{http_code}}\\n\' -H "Authorization: Bearer ${LIMITED.name.upper()}" "$url"'
    return [
        "",
        f"# The account limited has {LIMITED_DOWNLOADS} downloads: {'200 ' * LIMITED_DOWNLOADS}429.",
        f"for url in {' '.join(urls)}; do {get}; done",
    ]
