"""What queries mean, told a second time: random queries, each with the predicate that it stands for."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

UTC = datetime.UTC
DAYS = ("2020-01-01", "2020-02-29", "2020-03-01")
MOMENTS = tuple(
    datetime.datetime.fromisoformat(text).replace(tzinfo=UTC)
    for text in ("2020-01-01", "2020-01-01T23:59:59.999999", "2020-02-29T12:30", "2020-03-01", "2020-03-01T00:00:00.5")
)
WORDS = ("x", "xy", "Xy", "été", "5", "x y", 'q"q', "b\\s", "5.0", "true", "*", "2020-01-01")
NUMBERS = (-5, 0, 1.5, 5, 5.0, 1e20)
URNS = tuple(f"URN:FEATURE:DATA:esa:{number}:V1" for number in range(24))
DATASETS = {"c1": ("URN:AIP:DATASET:esa:c1:V1", "One"), "c2": ("URN:AIP:DATASET:esa:c2:V1", None)}
LEVELS = ("ACCEPTED", "ACCEPTED_WITH_WARNINGS", "REJECTED")
TYPES = ("RAWDATA", "QUICKLOOK_SD", "DOCUMENT")
BOXES = (
    (-10.0, -10.0, 10.0, 10.0), (10.0, 10.0, 20.0, 20.0), (170.0, -5.0, -170.0, 5.0), (-180.0, -90.0, 180.0, 90.0),
    (175.0, 0.0, 180.0, 1.0), (-180.0, 0.0, -175.0, 1.0), (30.0, 30.0, 30.0, 30.0),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Product:
    urn: str
    provider: str
    dataset: str
    created: datetime.datetime
    updated: datetime.datetime
    start: datetime.datetime | None
    end: datetime.datetime | None
    bbox: tuple[float, float, float, float] | None
    score: float | None
    level: str | None
    properties: dict[str, Any]
    files: tuple[tuple[str, str, int | None], ...]
    """Data type, name, size."""


Predicate = Callable[[Product], bool]
Values = Callable[[Product], Sequence[Any]]
Case = tuple[str, Predicate]


scalars = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(NUMBERS),
    st.booleans(),
    st.none(),
    st.sampled_from(
        ["2020-01-01T10:00:00Z", "2020-02-29", "2020-02-30", "2019-02-29", "2020-03-01T00:00:00+02:00",
         "2020-03-01t01:02:03.123456789z", "2020-03-01 01:02", "0000-01-01", "2020-13-01T00:00:00Z"]
    ),
)  # fmt: skip
members = st.one_of(scalars, st.lists(scalars, max_size=3))
objects = st.dictionaries(st.sampled_from(["c", "d.e"]), members, max_size=2)
properties = st.fixed_dictionaries(
    {}, optional={"a": members, "eo:x": members, "b": st.one_of(scalars, objects, st.lists(objects, max_size=2))}
)
maybe_moment = st.none() | st.sampled_from(MOMENTS)


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[Product, ...]:
    made = []
    for urn in URNS:
        start, end = draw(maybe_moment), draw(maybe_moment)
        if start is not None and end is not None and end < start:
            start, end = end, start
        made.append(
            Product(
                urn,
                draw(st.sampled_from(WORDS)) + urn[-5:],
                draw(st.sampled_from(sorted(DATASETS))),
                draw(st.sampled_from(MOMENTS)),
                draw(st.sampled_from(MOMENTS)),
                start,
                end,
                draw(st.none() | st.sampled_from(BOXES)),
                draw(st.none() | st.sampled_from([0.0, 1.5, 5.0, 9.9])),
                draw(st.none() | st.sampled_from(LEVELS)),
                draw(properties),
                tuple(
                    draw(
                        st.lists(
                            st.tuples(
                                st.sampled_from(TYPES), st.sampled_from(["x.tif", "y.tif"]), st.none() | st.just(5)
                            ),
                            max_size=2,
                        )
                    )
                ),
            )
        )
    return tuple(made)


def phrase(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def word(text: str) -> str:
    """Every character escaped that could mean anything."""
    return "".join(sign if sign.isalnum() else f"\\{sign}" for sign in text)


written = st.sampled_from([phrase, word])


def present(values: Values) -> Predicate:
    return lambda product: any(value is not None for value in values(product))


@st.composite
def on_text(draw: st.DrawFn, name: str, values: Values, known: Sequence[str]) -> Case:
    text, write = draw(st.sampled_from(known)), draw(written)

    def some(fits: Callable[[str], bool]) -> Predicate:
        return lambda product: any(fits(value) for value in values(product) if isinstance(value, str))

    match draw(st.sampled_from(["is", "is", "prefix", "range", "exists", "_exists_"])):
        case "is":
            return f"{name}:{write(text)}", some(lambda value: value == text)
        case "prefix":
            start = text[: draw(st.integers(1, len(text)))]
            return f"{name}:{word(start)}*", some(lambda value: value.startswith(start))
        case "exists":
            return f"{name}:*", present(values)
        case "_exists_":
            return f"_exists_:{name}", present(values)
    other = draw(st.sampled_from(known))
    if name.startswith("properties.") and not (is_word(text) and is_word(other)):
        text, other = "x", "xy"
    low, high = draw(st.sampled_from("[{")), draw(st.sampled_from("]}"))
    return f"{name}:{low}{phrase(text)} TO {phrase(other)}{high}", some(
        lambda value: (
            (value >= text if low == "[" else value > text) and (value <= other if high == "]" else value < other)
        )
    )


def is_word(text: str) -> bool:
    return text not in ("5", "5.0") and not text.startswith("20")


@st.composite
def on_number(draw: st.DrawFn, name: str, values: Values) -> Case:
    one, other = draw(st.sampled_from(NUMBERS)), draw(st.sampled_from(NUMBERS))

    def some(fits: Callable[[float], bool]) -> Predicate:
        return lambda product: any(
            fits(value) for value in values(product) if isinstance(value, int | float) and not isinstance(value, bool)
        )

    match draw(st.sampled_from(["range", "from", "to", "open"])):
        case "range":
            low, high = draw(st.sampled_from("[{")), draw(st.sampled_from("]}"))
            return f"{name}:{low}{one} TO {other}{high}", some(
                lambda value: (
                    (value >= one if low == "[" else value > one) and (value <= other if high == "]" else value < other)
                )
            )
        case "from":
            return f'{name}:>="{one}"', some(lambda value: value >= one)
        case "to":
            return f'{name}:<"{one}"', some(lambda value: value < one)
    return f"{name}:[* TO {one}]", some(lambda value: value <= one)


def instant(value: object) -> datetime.datetime | None:
    """What a property means as a time; digits below the microsecond are cut."""
    if isinstance(value, datetime.datetime):
        return value
    if not isinstance(value, str) or not value.startswith("20") or len(value) < 10:
        return None
    text = value.upper().replace(" ", "T")
    if "." in text:
        whole, _, fraction = text.partition(".")
        text = f"{whole}.{fraction[:6]}Z"
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


@st.composite
def on_time(draw: st.DrawFn, name: str, values: Values) -> Case:
    first, last = draw(st.sampled_from(DAYS)), draw(st.sampled_from(DAYS))
    one, other = (datetime.datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (first, last))
    day = datetime.timedelta(days=1)

    def some(fits: Callable[[datetime.datetime], bool]) -> Predicate:
        def holds(product: Product) -> bool:
            return any(fits(moment) for moment in map(instant, values(product)) if moment is not None)

        return holds

    match draw(st.sampled_from(["is", "range", "from", "minute", "instant"])):
        case "is":
            return f"{name}:{first}", some(lambda value: one <= value < one + day)
        case "range":
            low, high = draw(st.sampled_from("[{")), draw(st.sampled_from("]}"))
            since, until = one if low == "[" else one + day, other + day if high == "]" else other
            return f"{name}:{low}{first} TO {last}{high}", some(lambda value: since <= value < until)
        case "from":
            return f"{name}:>{first}", some(lambda value: value >= one + day)
        case "minute":
            noon = datetime.datetime(2020, 2, 29, 12, 30, tzinfo=UTC)
            return f'{name}:"2020-02-29T14:30+02:00"', some(
                lambda value: noon <= value < noon + datetime.timedelta(minutes=1)
            )
    moment = draw(st.sampled_from(MOMENTS))
    text = moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return f"{name}:[* TO {text}]", some(lambda value: value <= moment)


@st.composite
def on_period(draw: st.DrawFn) -> Case:
    first, last = sorted((draw(st.sampled_from(DAYS)), draw(st.sampled_from(DAYS))))
    one, other = (datetime.datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (first, last))

    def meets(product: Product) -> bool:
        if product.start is None or product.end is None:
            return False
        return product.end >= one and product.start < other + datetime.timedelta(days=1)

    return f"datetime:[{first} TO {last}]", meets


@st.composite
def on_box(draw: st.DrawFn) -> Case:
    wanted = draw(st.sampled_from(BOXES))

    def meets(product: Product) -> bool:
        if product.bbox is None or product.bbox[1] > wanted[3] or product.bbox[3] < wanted[1]:
            return False
        return any(
            one[0] <= other[1] and other[0] <= one[1] for one in halves(product.bbox) for other in halves(wanted)
        )

    return 'bbox:"{},{},{},{}"'.format(*wanted), meets


def halves(box: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    west, _, east, _ = box
    return [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]


def at(value: Any, *path: str) -> list[Any]:
    """Values at a path; of lists those of their elements."""
    found = [value]
    for step in path:
        found = [part[step] for part in elements(found) if isinstance(part, dict) and step in part]
    return elements(found)


def elements(values: Sequence[Any]) -> list[Any]:
    return [part for value in values for part in (value if isinstance(value, list) else [value])]


@st.composite
def on_value(draw: st.DrawFn, name: str, values: Values) -> Case:
    """A property equals a word: by text, number, truth or time."""
    text = draw(st.sampled_from([*WORDS, "false", "1.50", "-5", "2020-03-01", "2020-02-29T12:30"]))
    times = instant(text) if text.startswith("20") else None
    until = None if times is None else times + datetime.timedelta(days=0 if "T" in text else 1, minutes="T" in text)

    def equal(value: Any) -> bool:
        if isinstance(value, bool):
            return text == str(value).lower()
        if isinstance(value, int | float):
            return is_number(text) and float(text) == value
        if not isinstance(value, str):
            return False
        moment = instant(value)
        return value == text or (times is not None and until is not None and moment is not None and (
            times <= moment < until
        ))  # fmt: skip

    return f"{name}:{draw(written)(text)}", lambda product: any(equal(value) for value in values(product))


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


PROPERTIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("properties.a", ("a",)),
    ("properties.eo:x", ("eo:x",)),
    ("properties.eo\\:x", ("eo:x",)),
    ("properties.b.c", ("b", "c")),
    ("properties.b.d\\.e", ("b", "d.e")),
    ("properties.none", ("none",)),
)


def of_property(path: tuple[str, ...]) -> Values:
    return lambda product: at(product.properties, *path)


def one(value: Callable[[Product], Any]) -> Values:
    return lambda product: [value(product)]


leaves: st.SearchStrategy[Case] = st.one_of(
    *(on_text(name, one(lambda product: product.urn), [*URNS[:12], "URN:none"]) for name in ("id", "ipId", "urn")),
    on_text("providerId", one(lambda product: product.provider), [f"{text}0:V1"[:7] for text in WORDS]),
    on_text("quality_level", one(lambda product: product.level), LEVELS),
    on_text(
        "tags",
        lambda product: [product.dataset, DATASETS[product.dataset][0]],
        [*DATASETS, *(urn for urn, _ in DATASETS.values()), "x"],
    ),
    on_text("dataset.title", one(lambda product: DATASETS[product.dataset][1]), ["One", "Two"]),
    on_text("dataset.id", one(lambda product: product.dataset), ["c1", "c2"]),
    on_text("files.dataType", lambda product: [kind for kind, _, _ in product.files], TYPES),
    on_text("files.filename", lambda product: [name for _, name, _ in product.files], ["x.tif", "y.tif"]),
    on_number("files.filesize", lambda product: [size for _, _, size in product.files]),
    on_number("quality_score", one(lambda product: product.score)),
    on_time("creationDate", one(lambda product: product.created)),
    on_time("lastUpdate", one(lambda product: product.updated)),
    on_time("start_datetime", one(lambda product: product.start)),
    on_time("end_datetime", one(lambda product: product.end)),
    on_period(),
    on_box(),
    *(
        strategy
        for name, path in PROPERTIES
        for strategy in (
            on_text(name, of_property(path), [text for text in WORDS if is_word(text) and text not in ("true", "*")]),
            on_number(name, of_property(path)),
            on_time(name, of_property(path)),
            on_value(name, of_property(path)),
        )
    ),
    st.sampled_from([("*:*", lambda _: True), ("*", lambda _: True)]),
)


@st.composite
def grouped(draw: st.DrawFn) -> Case:
    """Values of one field in a group."""
    cases = draw(st.lists(on_value("properties.a", of_property(("a",))), min_size=1, max_size=3))
    values = [text.partition(":")[2] for text, _ in cases]
    sign = draw(st.sampled_from([" AND ", " OR ", " "]))
    quantifier = all if sign == " AND " else any
    return f"properties.a:({sign.join(values)})", lambda product: quantifier(holds(product) for _, holds in cases)


def _not(inner: Case, sign: str) -> Case:
    text, holds = inner
    return f"{sign}({text})", lambda product: not holds(product)


def _all(parts: Sequence[Case]) -> Case:
    return " AND ".join(f"({text})" for text, _ in parts), lambda product: all(holds(product) for _, holds in parts)


def _any(parts: Sequence[Case]) -> Case:
    return " OR ".join(f"({text})" for text, _ in parts), lambda product: any(holds(product) for _, holds in parts)


def _any_of_all(parts: Sequence[Sequence[Case]]) -> Case:
    """Without brackets: AND binds closer."""
    texts, predicates = zip(*(_all(part) for part in parts), strict=True)
    return " OR ".join(texts), lambda product: any(holds(product) for holds in predicates)


def _side_by_side(parts: Sequence[tuple[str, Case]]) -> Case:
    needed = [holds for sign, (_, holds) in parts if sign == "+"]
    refused = [holds for sign, (_, holds) in parts if sign in ("-", "NOT ")]
    others = [holds for sign, (_, holds) in parts if not sign]

    def all_in_all(product: Product) -> bool:
        if any(holds(product) for holds in refused) or not all(holds(product) for holds in needed):
            return False
        return bool(needed) or not others or any(holds(product) for holds in others)

    return " ".join(f"{sign}({text})" for sign, (text, _) in parts), all_in_all


cases: st.SearchStrategy[Case] = st.recursive(
    leaves | grouped(),
    lambda inner: st.one_of(
        st.builds(_not, inner, st.sampled_from(["NOT ", "NOT", "-"])),
        st.builds(_all, st.lists(inner, min_size=2, max_size=3)),
        st.builds(_any, st.lists(inner, min_size=2, max_size=3)),
        st.builds(_any_of_all, st.lists(st.lists(inner, min_size=1, max_size=2), min_size=2, max_size=3)),
        st.builds(
            _side_by_side,
            st.lists(st.tuples(st.sampled_from(["", "", "+", "-", "NOT "]), inner), min_size=2, max_size=3),
        ),
    ),
    max_leaves=6,
)
