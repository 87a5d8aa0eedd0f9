"""Looks at signed URLs as the client sees them that is redirected to one."""

from __future__ import annotations

import dataclasses
import email.utils
import math
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.doctor.asking import Answer, Asking, NoAnswerError, asking
from gateway.doctor.browsers import look_at_cors
from gateway.doctor.clocks import MOST_SECONDS, REMEDY, Skew, skew
from gateway.doctor.findings import Finding, Findings, ok, problem, warning
from gateway.http.disposition import content_disposition
from gateway.http.evaluate import UNKNOWN_TYPE
from gateway.http.origin import origin_of
from gateway.locations import Location
from gateway.storage import CanSign, StorageError

# HEAD with a URL that is signed for GET is refused by S3. Nothing relies on it: the gateway answers HEAD by itself.
_FIRST_BYTE = {"Range": "bytes=0-0"}

_CONTENT_RANGE = re.compile(r"bytes 0-0/([0-9]+)", re.IGNORECASE)
_SIGNATURE = re.compile(r"(?:^|&)[^=&]*sig(?:nature)?=", re.IGNORECASE)
"""What comes before the signature in a query: X-Amz-Signature, X-Goog-Signature, temp_url_sig, Signature, sig."""
_CHARACTER = re.compile(r"(?<!%)(?<!%[0-9A-Fa-f])[0-9A-Za-z]")
"""One that is no part of a percent-encoding."""


@dataclasses.dataclass(frozen=True, slots=True)
class Clients:
    """Those who are sent to signed URLs."""

    public_url: str | None
    """By which they know the gateway."""
    origin: str | None
    """Of the pages whose scripts fetch files; None for the gateway's own."""
    seconds: float
    """That an answer may take."""


@dataclasses.dataclass(frozen=True, slots=True)
class Object:
    """The copy that is asked for, as the gateway itself sees it."""

    location: str
    file_name: str
    mime_type: str | None
    size: int
    first_byte: bytes


async def look_at_signed_url(location: Location, storage: CanSign, found: Object, clients: Clients) -> Findings:
    """A client gets the copy by it without a token, nobody without the signature, and pages may fetch it."""
    wanted = {
        "Content-Type": found.mime_type or UNKNOWN_TYPE,
        "Content-Disposition": content_disposition(found.file_name, "attachment"),
    }
    try:
        signed = await storage.sign(
            found.location,
            method="GET",
            lifetime=location.redirect_ttl,
            content_type=wanted["Content-Type"],
            disposition=wanted["Content-Disposition"],
        )
    except StorageError as error:
        yield problem(f"cannot sign a URL: {error}", "give it credentials that hold")
        return
    yield _host(signed.url, clients.public_url)
    async with asking(clients.seconds) as client:
        try:
            answer = await client.ask("GET", signed.url, _FIRST_BYTE)
        except NoAnswerError as error:
            remedy = "see that clients reach this host; SSL_CERT_FILE names the certificates that this command trusts"
            yield problem(f"signed URLs: {origin_of(signed.url)} {error}", remedy)
            return
        clock = _clock(answer)
        if not answer.succeeded:
            yield _refused(answer, clock)
        for finding in _answered(answer, found, wanted) if answer.succeeded else ():
            yield finding
        if signed.lifetime is None:
            yield ok("its URLs have no signature, and work for ever: they are for files that everyone may have")
        else:
            yield await _unsigned(client, signed.url)
            yield _lifetime(signed.lifetime, clock)
        async for finding in look_at_cors(client, signed.url, public_url=clients.public_url, page=clients.origin):
            yield finding


def _host(url: str, public_url: str | None) -> Finding:
    text = f"signed URLs lead to {origin_of(url)}"
    if public_url is None:
        return warning(
            f"{text}: whether that is another host than the gateway's is not known", "set public_url of [api]"
        )
    if urlsplit(url).hostname != urlsplit(public_url).hostname:
        return ok(f"{text}, another host than the gateway's")
    if origin_of(url) == origin_of(public_url):
        return problem(
            f"{text}, the gateway's own host: clients send their token along", "give the storage a host name of its own"
        )
    return warning(
        f"{text}, another port or scheme of the gateway's own host: older clients send their token along",
        "give the storage a host name of its own",
    )


def _clock(answer: Answer) -> Skew | None:
    try:
        date = email.utils.parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        return None
    return skew(date.timestamp(), answer.before, answer.after, resolution=1)


def _refused(answer: Answer, clock: Skew | None) -> Finding:
    if 300 <= answer.status < 400:
        return problem(
            f"a signed URL is answered {answer}, a redirect", "set the endpoint and region of the bucket itself"
        )
    if clock is not None and clock.certain > MOST_SECONDS:
        return problem(f"a signed URL is answered {answer}; the clock of the storage is {clock}", REMEDY)
    remedy = "see region, credentials and their rights (s3:GetObject), and that no proxy changes host or path"
    return problem(f"a signed URL is answered {answer}", remedy)


def _answered(answer: Answer, found: Object, wanted: dict[str, str]) -> Iterator[Finding]:
    total = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if answer.status != 206 or total is None:
        yield warning(
            f"a signed URL is answered {answer} to a range: downloads cannot be resumed",
            "have the storage answer ranges",
        )
    if (total and int(total[1]) != found.size) or answer.beginning[:1] != found.first_byte:
        yield problem(
            "a signed URL gives another file than the gateway reads", "see that both endpoints lead to the same storage"
        )
    elif answer.status == 206:
        yield ok("a signed URL gives the file to whoever has it, by ranges")
    else:
        yield ok("a signed URL gives the file to whoever has it")
    ignored = [name for name, value in wanted.items() if answer.headers.get(name) != value]
    if ignored:
        yield warning(
            f"the storage does not answer with the {' and '.join(ignored)} of the catalogue",
            'store the objects with them, or set delivery = "stream"',
        )


async def _unsigned(client: Asking, url: str) -> Finding:
    """Whether the signature is needed, and looked at."""
    try:
        bare = await client.ask("GET", url.partition("?")[0], _FIRST_BYTE)
        tampered = await client.ask("GET", _tampered(url), _FIRST_BYTE)
    except NoAnswerError as error:
        return warning(f"whether it refuses what is not signed is not known: it {error}", "run this again")
    if bare.succeeded:
        return warning(
            f"it gives files to everybody, without a signature ({bare})",
            "take public access away, unless all may have all",
        )
    if tampered.succeeded:
        return problem(
            f"it does not verify signatures: a changed one is answered {tampered}",
            'set delivery = "stream" until it does',
        )
    if max(bare.status, tampered.status) >= 500:
        return warning(
            f"what is not signed is answered {bare}, a changed signature {tampered}", "see the storage's log"
        )
    return ok(f"without a signature it answers {bare}, to a changed one {tampered}")


def _tampered(url: str) -> str:
    """``url`` with another signature: one character of it is changed, of the last parameter if none is called so."""
    path, _, query = url.partition("?")
    named = _SIGNATURE.search(query)
    start = named.end() if named else query.rfind("=") + 1
    character = _CHARACTER.search(query, start)
    if character is None:
        return f"{url}0"
    other = "1" if character[0] == "0" else "0"
    return f"{path}?{query[: character.start()]}{other}{query[character.end() :]}"


def _lifetime(lifetime: float, clock: Skew | None) -> Finding:
    text = f"signed URLs work for {math.ceil(lifetime)} s"
    if clock is None:
        return warning(f"{text}; the storage does not tell its time", "see that its clock is right")
    if clock.certain <= min(MOST_SECONDS, lifetime / 4):
        return ok(f"{text}, and the clock of the storage agrees with ours")
    if clock.ahead - clock.uncertainty >= lifetime:
        return problem(f"{text}, but the clock of the storage is {clock}: they have ended when they are made", REMEDY)
    return warning(f"{text}, but the clock of the storage is {clock}", REMEDY)
