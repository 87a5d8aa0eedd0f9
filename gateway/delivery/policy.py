"""How the bytes of an answer leave: through this process, by a redirect to the storage, or by the proxy in front."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

from multidict import MultiMapping

API_KEY = "X-API-Key"
"""The field of an API key."""

Way = Literal["stream", "redirect", "accel"]

_PRODUCT = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)/([0-9]+(?:\.[0-9]+)*)")
_COMMENT = re.compile(r"\([^()]*\)")
_PRECONDITIONS = ("If-Match", "If-Unmodified-Since")


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """How, and why."""

    way: Way
    reason: str
    """For Server-Timing and operators: a few words, without a comma or quotes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known of a GET and of the copy that would answer it."""

    delivery: Literal["auto", "stream", "redirect", "accel"]
    """The setting of the storage location."""
    passes_through: bool
    """Whether the bytes must pass through this process, because each delivery is held against the checksum."""
    can_sign: bool
    """Whether the storage can let a client fetch the copy."""
    offered: bool
    """Whether the proxy in front can send it just as we would, and offers to."""
    several_parts: bool
    """Whether the answer is multipart/byteranges."""
    partial: bool
    """Whether the answer is 206."""
    size: int
    """Bytes of the whole file."""
    redirect_min_size: int
    agents: Sequence[str]
    """Clients, with their oldest version, that keep a token from other hosts."""


def decide(circumstances: Circumstances, headers: MultiMapping[str]) -> Decision:
    """The way of a GET; HEAD is always answered here.

    A redirect lets the storage judge ranges and preconditions by its own validators. So whatever was judged by ours is
    answered here: preconditions, and a range that holds by If-Range. A range whose If-Range does not hold may carry
    the storage's validator, of an earlier redirect: that one is the storage's to judge.
    """
    if circumstances.delivery == "stream":
        return Decision("stream", "set so for this storage")
    if circumstances.passes_through:
        return Decision("stream", "each delivery is verified")
    if circumstances.offered and circumstances.delivery in ("auto", "accel"):
        return Decision("accel", "the proxy in front offers to send it")
    if circumstances.delivery == "accel":
        return Decision("stream", "no trusted proxy offers to send this answer")
    if not circumstances.can_sign:
        return Decision("stream", "the storage gives no signed URLs")
    if circumstances.several_parts:
        return Decision("stream", "several ranges are answered here")
    if any(name in headers for name in _PRECONDITIONS) or ("If-Range" in headers and circumstances.partial):
        return Decision("stream", "a precondition was judged by our validators")
    if API_KEY in headers:
        # Clients keep Authorization from other hosts, if anything; a field of ours all of them send on.
        return Decision("stream", "clients send their API key on")
    if circumstances.delivery == "redirect":
        return Decision("redirect", "set so for this storage")
    return _cheapest(circumstances, headers)


def _cheapest(circumstances: Circumstances, headers: MultiMapping[str]) -> Decision:
    """Of a redirect and a stream, where either would do."""
    if circumstances.size < circumstances.redirect_min_size:
        return Decision("stream", "too small for a second request")
    if "Authorization" not in headers:
        return Decision("redirect", "there is no token that could be sent on")
    if keeps_tokens(headers.get("User-Agent", ""), circumstances.agents):
        return Decision("redirect", "this client keeps its token from other hosts")
    return Decision("stream", "this client may send its token on")


def keeps_tokens(agent: str, known: Sequence[str]) -> bool:
    """Whether the client that calls itself ``agent`` (RFC 9110 §10.1.5) is one of ``known``, or newer.

    What counts is the first product outside comments, which names the client; ``Python`` only names what it runs on.
    """
    products = [match for match in _PRODUCT.findall(_COMMENT.sub("", agent)) if match[0] != "Python"]
    if not products:
        return False
    name, version = products[0]
    for entry in known:
        known_name, _, oldest = entry.partition("/")
        if name.lower() == known_name.lower() and _numbers(version) >= _numbers(oldest):
            return True
    return False


def _numbers(version: str) -> tuple[int, ...]:
    # No client has a longer number, but whoever attacks may send one.
    return tuple(int(part[:9]) for part in version.split("."))
