"""AWS Signature Version 4 in the query of a URL: what makes a "presigned" URL.

After "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)" of the Amazon S3 API reference. Only
the Host field is signed, and no body, so that whoever has the URL can send it with any other field. Pure: the time is
given, and nothing is asked of anybody.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import hmac
import re
import time
from urllib.parse import quote

MOST_SECONDS = 604_800
"""The longest that a signed URL may work: 7 days."""

_ALGORITHM = "AWS4-HMAC-SHA256"
_RESERVED = re.compile(r"[^A-Za-z0-9_.~-]")
_ESCAPES = {chr(code): f"%{code:02X}" for code in range(128)}


@dataclasses.dataclass(frozen=True, slots=True)
class Credentials:
    """What signs, until ``expires``."""

    access_key_id: str = dataclasses.field(repr=False)
    secret_access_key: str = dataclasses.field(repr=False)
    session_token: str | None = dataclasses.field(default=None, repr=False)
    expires: float | None = None
    """When they end, in seconds since the epoch; None if they last."""


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where a URL leads to, as it is written in the URL and in the Host field."""

    scheme: str
    host: str
    """In lower case, with its port unless that is the default one of the scheme."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}"


class Signer:
    """Signs for one region, and remembers the signing key of the day for the credentials that it was last given."""

    def __init__(self, region: str, service: str = "s3") -> None:
        self._region = region
        self._service = service
        self._credentials: Credentials | None = None
        self._second = self._day = -1
        self._key = b""
        self._head = self._token = self._to_sign = ""

    def __repr__(self) -> str:
        return f"Signer({self._region!r}, {self._service!r})"

    def presign(
        self,
        method: str,
        origin: Origin,
        path: str,
        *,
        credentials: Credentials,
        now: float,
        seconds: int,
        content_type: str | None = None,
        disposition: str | None = None,
    ) -> str:
        """The URL of ``path`` at ``origin``, signed for ``method``; it is to be sent as it is.

        Args:
            method: the only one that the URL will work for.
            origin: of the URL; another Host field breaks the signature.
            path: absolute, percent-encoded as it is to be sent (`encoded_path`).
            credentials: to sign with. The signing key is derived anew when they are not the very object of last time.
            now: seconds since the epoch.
            seconds: how long the URL works, counted from the whole second before ``now``; at most `MOST_SECONDS`.
            content_type: the Content-Type that S3 shall answer with.
            disposition: the Content-Disposition that S3 shall answer with.

        Raises:
            UnicodeEncodeError: the content type or the disposition has half of a surrogate pair.
        """
        second = int(now)
        if second != self._second or credentials is not self._credentials:
            self._turn_to(second, credentials)
        answer = ""
        if disposition is not None:
            answer = f"&response-content-disposition={_quoted(disposition)}"
        if content_type is not None:
            answer = f"{answer}&response-content-type={_quoted(content_type)}"
        # The signed text has the parameters in the order of their names, capitals first; the URL has the wishes first.
        head, token = f"{self._head}{seconds}", self._token
        request = (
            f"{method}\n{path}\n{head}{token}&X-Amz-SignedHeaders=host{answer}\n"
            f"host:{origin.host}\n\nhost\nUNSIGNED-PAYLOAD"
        )
        digest = hashlib.sha256(request.encode()).hexdigest()
        signature = hmac.digest(self._key, f"{self._to_sign}{digest}".encode(), "sha256").hex()
        wishes = f"{answer[1:]}&" if answer else ""
        return (
            f"{origin.scheme}://{origin.host}{path}?{wishes}{head}&X-Amz-SignedHeaders=host{token}"
            f"&X-Amz-Signature={signature}"
        )

    def _turn_to(self, second: int, credentials: Credentials) -> None:
        """Prepare what is the same for all URLs of this second."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        date = stamp[:8]
        scope = f"{date}/{self._region}/{self._service}/aws4_request"
        day = second // 86400
        if day != self._day or credentials is not self._credentials:
            key = f"AWS4{credentials.secret_access_key}".encode()
            for part in (date, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = key
        token = credentials.session_token
        self._token = "" if token is None else f"&X-Amz-Security-Token={quote(token, safe='')}"
        self._head = (
            f"X-Amz-Algorithm={_ALGORITHM}&X-Amz-Credential={_quoted(f'{credentials.access_key_id}/{scope}')}"
            f"&X-Amz-Date={stamp}&X-Amz-Expires="
        )
        self._to_sign = f"{_ALGORITHM}\n{stamp}\n{scope}\n"
        self._second, self._day, self._credentials = second, day, credentials


def encoded_path(key: str) -> str:
    """A key as the last part of a path: UTF-8, with all percent-encoded but unreserved characters and slashes.

    Raises:
        UnicodeEncodeError: it has half of a surrogate pair.
    """
    return quote(key, safe="/")


@functools.lru_cache(maxsize=1024)
def _quoted(text: str) -> str:
    """``quote(text, safe="")`` in half the time where most characters are unreserved."""
    return _RESERVED.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return _ESCAPES.get(found[0]) or quote(found[0])
