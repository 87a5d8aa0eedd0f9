"""Patterns of file names: regular expressions that PostgreSQL decides in linear time.

Its engine runs a finite automaton unless an expression refers back to what a group has found, or looks around; those
are refused, and so are long ones and large repetitions, whose automaton would be large.
"""

from __future__ import annotations

import re

from gateway.text import is_storable

LONGEST = 200
"""Characters of a pattern."""
MOST_REPETITIONS = 50
_FORBIDDEN = re.compile(r"\\[0-9ABDMQWYZmuxUyc]|\(\?")
_BOUNDS = re.compile(r"\{(\d+)(?:,(\d*))?\}")


def refusal(pattern: str) -> str | None:
    """Why ``pattern`` is not taken; None if it is. Whether it is an expression at all, only PostgreSQL knows."""
    if not 0 < len(pattern) <= LONGEST or not is_storable(pattern):
        return f"a pattern of file names has 1 to {LONGEST} characters"
    if _FORBIDDEN.search(pattern) or pattern.startswith("***"):
        return "a pattern of file names has no back references, no look-around and no other extensions"
    for low, high in _BOUNDS.findall(pattern):
        if int(low) > MOST_REPETITIONS or (high and int(high) > MOST_REPETITIONS):
            return f"a pattern of file names repeats nothing more than {MOST_REPETITIONS} times"
    if len(_BOUNDS.findall(pattern)) > 3:
        return "a pattern of file names has at most three counted repetitions"
    return None


def whole(pattern: str | None) -> str | None:
    """What PostgreSQL is to look for, so that ``pattern`` fits whole names."""
    return None if pattern is None else f"^(?:{pattern})$"
