"""The Range field a second time, from the grammar of RFC 9110 §14.1 alone: slow, obvious, character by character."""

from __future__ import annotations

from typing import Literal

DIGITS = "0123456789"

Answer = Literal["ignore", "unsatisfiable"] | list[list[int]]
"""What becomes of Range; a list holds the positions of each satisfiable range."""


def value(digits: str) -> int:
    total = 0
    for digit in digits:
        total = total * 10 + DIGITS.index(digit)
    return total


def is_number(text: str) -> bool:
    return text != "" and all(character in DIGITS for character in text)


def without_ows(text: str) -> str:
    while text and text[0] in " \t":
        text = text[1:]
    while text and text[-1] in " \t":
        text = text[:-1]
    return text


def positions(spec: str, length: int) -> list[int] | None:
    """The positions of one range-spec; None if it is no valid one. An empty list stands for an unsatisfiable one."""
    if spec.count("-") != 1:
        return None
    before, after = spec.split("-")
    if before == "":
        if not is_number(after):
            return None
        return [position for position in range(length) if position >= length - value(after)]
    if not is_number(before) or not (after == "" or is_number(after)):
        return None
    if after != "" and value(after) < value(before):
        return None
    return [
        position
        for position in range(length)
        if position >= value(before) and (after == "" or position <= value(after))
    ]


def answer(field: str, length: int) -> Answer:
    if len(field) > 4096:
        return "ignore"
    field = without_ows(field)
    if field[:6].lower() != "bytes=":
        return "ignore"
    members = [without_ows(member) for member in field[6:].split(",")]
    members = [member for member in members if member != ""]
    ranges = [positions(member, length) for member in members]
    if not ranges or len(ranges) > 16 or any(found is None for found in ranges):
        return "ignore"
    if length == 0:
        suffixes = [member[1:] for member in members if member[0] == "-"]
        return "ignore" if any(value(suffix) > 0 for suffix in suffixes) else "unsatisfiable"
    satisfiable = [found for found in ranges if found]
    if sum(len(found) for found in satisfiable) > length:
        return "ignore"
    return satisfiable or "unsatisfiable"
