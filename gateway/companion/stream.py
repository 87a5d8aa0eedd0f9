"""Rewriting a JSON document while it passes, in bounded memory: an item of a page at a time."""

from __future__ import annotations

import codecs
import enum
import json
from collections.abc import Callable, Iterator

from gateway.catalog.ingest.jsonstream import MAX_ENTRY
from gateway.catalog.ingest.model import Json
from gateway.companion.rewriting import Rewriting

STREAMED = ("features", "collections", "catalogs", "children")
"""Members whose array passes element by element."""
_BLANK = " \t\n\r"
_NUMBER_CUT = 2
"""Characters of a number's next part, like "e+", that mean nothing yet: a number so near the end may go on."""
_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class MalformedError(ValueError):
    """The document is no JSON, or a part of it is too long; the message quotes nothing of it."""


def _no_constant(_: str) -> Json:
    raise ValueError("is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


class _Wants(enum.Enum):
    """What comes next."""

    DOCUMENT = enum.auto()
    MEMBER = enum.auto()
    """A name and its value, or the end of the object where none came yet."""
    AFTER_MEMBER = enum.auto()
    ELEMENT = enum.auto()
    """An element, or the end of the array where none came yet."""
    AFTER_ELEMENT = enum.auto()
    NOTHING = enum.auto()


class Rewriter:
    """Takes a document piece by piece, and gives it changed.

    Members of the outermost object are given as they come, but for those that an item, a collection or a landing page
    has: these are held back, as what is done with one of them may depend on another that comes later.
    """

    def __init__(self, rewriting: Rewriting) -> None:
        self._rewriting = rewriting
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._enough = 0
        self._ended = False
        self._wants = _Wants.DOCUMENT
        self._given = self._first = False
        self._held: dict[str, Json] = {}
        self._size = 0

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece; what can be given now.

        Raises:
            MalformedError: see there.
        """
        return self._work(piece, final=False)

    def end(self) -> bytes:
        """What is left, once everything was fed.

        Raises:
            MalformedError: it ends in the middle, too.
        """
        rest = self._work(b"", final=True)
        if self._wants is not _Wants.NOTHING or self._text.strip(_BLANK):
            raise MalformedError("is no JSON: it ends early, or goes on behind its end")
        return rest

    def _work(self, piece: bytes, *, final: bool) -> bytes:
        try:
            self._text += self._decoder.decode(piece, final)
        except UnicodeDecodeError:
            raise MalformedError("is not UTF-8") from None
        self._ended = final
        if len(self._text) < self._enough and not final:
            return b""
        given = "".join(self._steps())
        if len(self._text) > MAX_ENTRY or self._size > MAX_ENTRY:
            raise MalformedError("has a part that is too long, or is no JSON")
        return given.encode("utf-8", "replace")

    def _steps(self) -> Iterator[str]:
        """Go on as far as the text goes."""
        while True:
            self._text = self._text.lstrip(_BLANK)
            if not self._text or self._wants is _Wants.NOTHING:
                return
            step = _STEPS[self._wants](self)
            if step is None:
                # Twice as much is worth another look: less would have a long value looked at again and again.
                self._enough = 2 * len(self._text)
                return
            self._enough = 0
            yield step

    def _document(self) -> str | None:
        if self._text[0] == "{":
            self._text = self._text[1:]
            self._wants, self._first = _Wants.MEMBER, True
            return ""
        taken = self._value(0)
        if taken is None:
            return None
        value, end = taken
        self._text, self._wants = self._text[end:], _Wants.NOTHING
        return _ENCODE(value)

    def _member(self) -> str | None:
        if self._text[0] == "}" and self._first:
            return self._finish()
        named = self._value(0)
        if named is None:
            return None
        name, at = named[0], _skip(self._text, named[1])
        if not isinstance(name, str) or (at < len(self._text) and self._text[at] != ":"):
            raise MalformedError("is no JSON: a member has no name")
        at = _skip(self._text, at + 1)
        if at >= len(self._text):
            return None
        if name in STREAMED and self._text[at] == "[":
            self._text = self._text[at + 1 :]
            self._wants, self._first = _Wants.ELEMENT, True
            return self._opening(name) + "["
        taken = self._value(at)
        if taken is None:
            return None
        value, end = taken
        self._size += end - at
        self._text = self._text[end:]
        self._wants, self._first = _Wants.AFTER_MEMBER, False
        self._held[name] = value
        return ""

    def _after_member(self) -> str:
        if self._text[0] == "}":
            return self._finish()
        self._pass(",")
        self._wants = _Wants.MEMBER
        return ""

    def _element(self) -> str | None:
        if self._text[0] == "]" and self._first:
            self._text, self._wants, self._first = self._text[1:], _Wants.AFTER_MEMBER, False
            return "]"
        taken = self._value(0)
        if taken is None:
            return None
        value, end = taken
        self._text = self._text[end:]
        comma = "" if self._first else ","
        self._wants, self._first = _Wants.AFTER_ELEMENT, False
        return comma + _ENCODE(self._rewriting.whole(value))

    def _after_element(self) -> str:
        if self._text[0] == "]":
            self._text, self._wants = self._text[1:], _Wants.AFTER_MEMBER
            return "]"
        self._pass(",")
        self._wants = _Wants.ELEMENT
        return ""

    def _opening(self, name: str) -> str:
        """What was held back has to go before a streamed member: nobody knows how much is still to come."""
        before = self._release()
        opening = ("," if self._given else "{") if not before else f"{before},"
        self._given = True
        return f"{opening}{_ENCODE(name)}:"

    def _finish(self) -> str:
        self._text, self._wants = self._text[1:], _Wants.NOTHING
        rest = self._release()
        return f"{rest or ('' if self._given else '{')}}}"

    def _release(self) -> str:
        """The members that were held back, changed, with what belongs before them."""
        if not self._held:
            return ""
        changed = self._rewriting.whole(self._held)
        assert isinstance(changed, dict)  # noqa: S101 - as what it was made of
        text = _ENCODE(changed)[1:-1]
        opening = "," if self._given else "{"
        self._held, self._given, self._size = {}, True, 0
        return opening + text

    def _value(self, at: int) -> tuple[Json, int] | None:
        """The value at a position of the text, and where it ends; None if more of the text is needed."""
        try:
            value, end = _DECODER.raw_decode(self._text, at)
        except json.JSONDecodeError:
            if self._ended:
                raise MalformedError("is no JSON") from None
            return None
        except (ValueError, RecursionError):
            raise MalformedError("is no JSON, or nests too deep") from None
        if isinstance(value, int | float) and len(self._text) - end <= _NUMBER_CUT and not self._ended:
            return None
        return value, end

    def _pass(self, expected: str) -> None:
        if self._text[0] != expected:
            raise MalformedError("is no JSON: a comma is missing")
        self._text = self._text[1:]


_STEPS: dict[_Wants, Callable[[Rewriter], str | None]] = {
    _Wants.DOCUMENT: Rewriter._document,
    _Wants.MEMBER: Rewriter._member,
    _Wants.AFTER_MEMBER: Rewriter._after_member,
    _Wants.ELEMENT: Rewriter._element,
    _Wants.AFTER_ELEMENT: Rewriter._after_element,
}


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at
