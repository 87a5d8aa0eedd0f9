"""What the suite found, for people and for build servers."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from gateway.conformance.suite import Outcome, Result
from gateway.text import one_line

_SUITE = "STAC API - Download"


def line(result: Result) -> str:
    """One for a terminal."""
    text = f": {one_line(result.text)}" if result.text else ""
    return f"{result.outcome:<8} {result.name}{text} [{result.source}]"


def summary(results: Sequence[Result]) -> str:
    """How many of each."""
    passed, failed, warnings, skipped = (_count(results, one) for one in ("pass", "fail", "warning", "skip"))
    return f"{passed} passed, {failed} failed, {warnings} warnings, {skipped} skipped"


def junit(results: Sequence[Result], root: str) -> str:
    """A JUnit report. Warnings are no failures: they are told in the output of their case."""
    cases = "".join(_case(result) for result in results)
    seconds = sum(result.seconds for result in results)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n'
        f'<testsuite name={quoteattr(_SUITE)} tests="{len(results)}" failures="{_count(results, "fail")}" errors="0" '
        f'skipped="{_count(results, "skip")}" time="{seconds:.3f}">\n'
        f'<properties><property name="root" value={quoteattr(one_line(root))}/></properties>\n'
        f"{cases}</testsuite>\n</testsuites>\n"
    )


def _case(result: Result) -> str:
    text = one_line(result.text)
    body = {
        "pass": "",
        "fail": f"<failure message={quoteattr(text)}>{escape(f'{text} [{result.source}]')}</failure>",
        "skip": f"<skipped message={quoteattr(text)}/>",
        "warning": f"<system-out>{escape(f'warning: {text} [{result.source}]')}</system-out>",
    }[result.outcome]
    return (
        f'<testcase classname={quoteattr(_SUITE)} name={quoteattr(result.name)} time="{result.seconds:.3f}">'
        f"{body}</testcase>\n"
    )


def _count(results: Sequence[Result], outcome: Outcome) -> int:
    return sum(result.outcome == outcome for result in results)
