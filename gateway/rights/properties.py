"""The policy ``properties``: compares properties of the product with values, or with the caller.

Options of a right: ``{"all": [condition, …]}`` or ``{"any": [condition, …]}``. A condition names a ``property`` and one
comparison: ``equals`` a value, ``in`` a list of values, ``atLeast`` or ``atMost`` a number. The value of ``equals`` may
be ``{"caller": "email"}`` (or ``role``), that of ``in`` ``{"caller": "groups"}``::

    {"any": [{"property": "project", "in": {"caller": "groups"}},
             {"property": "eo:cloud_cover", "atMost": 20}]}

Of a property that is a list, one element that fits is enough. A property that is missing or null fits nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Self

from gateway.errors import ConfigurationError
from gateway.rights.policy import Caller, PolicyError, Question


class Properties:
    """See the module."""

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Self:  # noqa: ARG003 - of the protocol
        """Without options: those of each right say what is compared."""
        if options:
            raise ConfigurationError(f"{', '.join(sorted(options))}: plug-in 'properties' has no options")
        return cls()

    async def decide(self, questions: Sequence[Question]) -> list[bool]:
        """Yes where the properties are as the options of the right want them."""
        return [_holds(question) for question in questions]

    async def close(self) -> None:
        """Nothing is held."""


def _holds(question: Question) -> bool:
    (quantifier, conditions), *others = question.options.items() or [("", None)]
    if others or quantifier not in ("all", "any") or not isinstance(conditions, list) or not conditions:
        raise PolicyError('policy_options must be {"all": [condition, …]} or {"any": [condition, …]}')
    # Every condition is looked at, so that a bad one shows whatever the others say.
    met = [_is_met(condition, question) for condition in conditions]
    return all(met) if quantifier == "all" else any(met)


def _is_met(condition: Any, question: Question) -> bool:
    if not isinstance(condition, dict) or len(condition) != 2 or not isinstance(condition.get("property"), str):
        raise PolicyError(f"a condition has a property and one comparison: {json.dumps(condition)}")
    ((comparison, operand),) = ((name, value) for name, value in condition.items() if name != "property")
    if comparison not in _COMPARISONS:
        raise PolicyError(f"{comparison!r} is none of {', '.join(_COMPARISONS)}")
    fits = _COMPARISONS[comparison](operand, question.caller)
    value = question.product.properties.get(condition["property"])
    values = value if isinstance(value, list) else [value]
    return any(fits(one) for one in values if one is not None)


def _equals(operand: Any, caller: Caller) -> Callable[[Any], bool]:
    wanted = _plain(operand)
    if isinstance(operand, dict):
        of_caller = {"email": caller.email, "role": caller.role}
        if set(operand) != {"caller"} or operand["caller"] not in of_caller:
            raise PolicyError('"equals" takes a value, {"caller": "email"} or {"caller": "role"}')
        wanted = _plain(of_caller[operand["caller"]])
    return lambda value: _plain(value) == wanted


def _in(operand: Any, caller: Caller) -> Callable[[Any], bool]:
    values: Collection[Any] = operand
    if operand == {"caller": "groups"}:
        values = caller.groups
    elif not isinstance(operand, list):
        raise PolicyError('"in" takes a list of values, or {"caller": "groups"}')
    wanted = {_plain(value) for value in values}
    return lambda value: _plain(value) in wanted


def _at_least(operand: Any, _: Caller) -> Callable[[Any], bool]:
    least = _number(operand)
    return lambda value: _is_number(value) and value >= least


def _at_most(operand: Any, _: Caller) -> Callable[[Any], bool]:
    most = _number(operand)
    return lambda value: _is_number(value) and value <= most


_COMPARISONS = {"equals": _equals, "in": _in, "atLeast": _at_least, "atMost": _at_most}


def _plain(value: Any) -> str:
    """JSON values are compared as JSON: true is not 1, and 1 is not "1"; 1.0 is 1."""
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value, sort_keys=True)


def _number(operand: Any) -> float:
    if not _is_number(operand):
        raise PolicyError(f"{json.dumps(operand)} is no number")
    return float(operand)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
