"""Hundreds of made-up requests on one connection, thousands in the long tests, each answered as the model says."""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.conformance import model
from tests.conformance.answers import Plain, read
from tests.conformance.conftest import Stand
from tests.conformance.http1 import Connection, Lines, Response
from tests.conformance.table import filling
from tests.harness import SCIENTIST, bearer
from tests.http.test_ranges import range_fields

EXAMPLES = int(os.environ.get("GATEWAY_TEST_EXAMPLES", "500"))
"""Requests; 20,000 in the long tests."""

LENGTHS = {"some": 100, "none": 0, "many": 66_000}
"""Sizes of the files asked for; the last is above what the gateway sends in one piece."""


@dataclasses.dataclass
class Talk:
    """One connection to the gateway, and the files to ask for on it."""

    address: tuple[str, int]
    connection: Connection
    fields: Lines
    files: dict[str, tuple[str, Plain]]
    """Target and plain answer by name."""

    def exchange(self, method: str, target: str, lines: Lines) -> Response:
        try:
            response = self.connection.exchange(method, target, [*self.fields, *lines])
            assert not self.connection.is_closing
            assert self.connection.surplus == b""
        except BaseException:
            # The example fails; those by which it is made smaller must not fail for its sake.
            self.connection.close()
            self.connection = Connection(self.address)
            raise
        return response


@pytest.fixture(scope="module")
def talk(stand: Stand) -> Iterator[Talk]:
    talk = Talk(stand.address, Connection(stand.address), list(bearer(SCIENTIST).items()), {})
    for name, length in LENGTHS.items():
        content = bytes(number * 7 % 251 for number in range(length))
        entry = stand.wait_for(stand.add(content, item=f"random-{name}"))
        talk.files[name] = entry.stac, Plain(talk.exchange("GET", entry.stac, ()), content)
    yield talk
    talk.connection.close()


RANGES = [
    "bytes=0-0",
    "bytes=0-9,20-29",
    "bytes=0-",
    "bytes=-1",
    "bytes={n}-",
    "bytes={half}-{beyond}",
    "bytes=0-0,-1",
    "bytes=0-{before_half},{half}-",
    "bytes=-0",
]
TAGS = [
    *["{etag}"] * 4,
    "{weak}",
    "{opaque}",
    "{capitals}",
    '"other"',
    'W/"other"',
    '""',
    "*",
    "",
    ",",
    "{weak}, {etag}",
    '"a,b", {etag}',
    '"other",,{etag}',
]
DATES = [
    "{lm}",
    "{older}",
    "{newer}",
    "{now}",
    "{lm_850}",
    "{older_850}",
    "{newer_850}",
    "{lm_asctime}",
    "{older_asctime}",
    "{newer_asctime}",
    "Sat, 31 Dec 2016 23:59:60 GMT",
    "Mon, 30 Feb 2026 12:00:00 GMT",
]
FIELDS = {
    "Range": RANGES,
    "range": RANGES,
    "If-Range": [*TAGS, *DATES],
    "If-Match": TAGS,
    "If-None-Match": TAGS,
    "If-Modified-Since": DATES,
    "If-Unmodified-Since": DATES,
}
"""Values that belong to each field."""
NAMES = [*["Range"] * 6, *FIELDS]

# What may stand in a field value: bytes that are no text too, but no control characters, which end the connection.
text = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
near_misses = st.text('W/"*,-= \tbytes0123456789:GMTSunFeb\udcff\udc80é', max_size=30)
ranges = range_fields().map(lambda field: "".join(one for one in field if one.isprintable() or one == "\t"))
garbage = st.one_of(text, near_misses, ranges).map(lambda value: value.replace("{", "").replace("}", ""))


@st.composite
def field_lines(draw: st.DrawFn) -> tuple[str, str]:
    """A field with a value that belongs to it, one that does not, one with something put to it, or garbage."""
    name = draw(st.sampled_from(NAMES))
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return name, draw(garbage)
    value = draw(st.sampled_from([*RANGES, *TAGS, *DATES] if kind == 1 else FIELDS[name]))
    if kind == 2:
        before, behind = draw(st.sampled_from([" ", "\t", ", "])), draw(st.sampled_from(["", " ", ",", " ,", '"']))
        return name, f"{before}{value}{behind}"
    if kind == 3:
        return name, value + draw(st.sampled_from([", ", ",", " ", ";", ""])) + draw(st.sampled_from(FIELDS[name]))
    return name, value


header_sets = st.one_of(
    st.lists(field_lines(), min_size=1, max_size=4, unique_by=lambda line: line[0].lower()),
    st.lists(field_lines(), max_size=8),
)


@pytest.mark.timeout(max(60, EXAMPLES // 20))
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(header_sets, st.sampled_from([*["GET"] * 3, "HEAD"]), st.sampled_from([*["some"] * 3, *LENGTHS]))
def test_any_headers_are_answered_as_the_model_says(
    talk: Talk, lines: list[tuple[str, str]], method: str, name: str
) -> None:
    target, plain = talk.files[name]
    known = filling(plain)
    sent = [(field, value.format_map(known)) for field, value in lines]
    response = talk.exchange(method, target, sent)
    event(str(response.status))

    fields: dict[str, list[str]] = {}
    for field, value in sent:
        fields.setdefault(field.lower(), []).append(value)
    modified = email.utils.parsedate_to_datetime(known["lm"])
    file = model.File(len(plain.data), known["opaque"], modified)
    assert read(method, response, plain) == model.answer(method, fields, file, datetime.datetime.now(datetime.UTC))
