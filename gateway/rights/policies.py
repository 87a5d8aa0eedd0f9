"""Rights that leave something to a policy: whom to ask, and what follows from the answers.

A verdict has three values: a policy that cannot decide makes it None, unless another right says yes anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

import asyncpg

from gateway.config import PolicyTable
from gateway.errors import ConfigurationError
from gateway.identity.principal import Principal
from gateway.rights.opa import OpenPolicyAgent
from gateway.rights.policy import Action, Caller, Policy, PolicyError, Product, Question
from gateway.rights.properties import Properties

log = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "gateway.policies"
MOST_AT_ONCE = 100
"""Questions that a policy is asked in one call, for which it has its ``timeout``."""
SECONDS = 5.0
"""That a policy has for all calls that one answer takes, unless its ``timeout`` is longer."""

_BUILT_IN: Mapping[str, type[Policy]] = {"opa": OpenPolicyAgent, "properties": Properties}
_ALWAYS = PolicyTable(name="properties", plugin="properties")
"""Needs no settings, so that rights can name it without a table."""


Row = Mapping[str, Any] | asyncpg.Record
"""A product, with the columns of `gateway.rights.predicate.RIGHTS`, and ``facts`` of its ``FACTS``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What a caller may; None where nobody can tell at the moment."""

    visible: bool | None
    """See the product."""
    downloadable: bool | None
    """Have its private files."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Right:
    """A right that leaves something to a policy: numbers of the questions to it, None where there is none."""

    policy: str
    read: int | None
    download: int | None
    files: bool
    """Whether it opens files at all, and that was asked."""


class Policies:
    """The policies by name. Made by `open_policies`."""

    def __init__(self, policies: Mapping[str, tuple[Policy, float]]) -> None:
        """Ask ``policies``, each within its seconds."""
        self._policies = policies

    @property
    def names(self) -> Collection[str]:
        """What rights can name."""
        return self._policies.keys()

    async def judge(self, principal: Principal, rows: Sequence[Row], *, files: bool = True) -> list[Verdict]:
        """What ``principal`` may with each product.

        Where that takes many questions, the time for all of them is bounded, too: see `SECONDS`.

        Args:
            principal: the caller.
            rows: a product each.
            files: whether it matters who may have private files; else no policy is asked about them.
        """
        verdicts = [Verdict(row["visible"] is True, row["downloadable"] is True) for row in rows]
        asked: dict[str, list[Question]] = {}
        open_ones: dict[int, list[_Right]] = {}
        for number, row in enumerate(rows):
            done = verdicts[number].downloadable if files else verdicts[number].visible
            if row["questions"] is not None and not done:
                open_ones[number] = list(_questions(principal, row, asked, files=files))
        if open_ones:
            answers = dict(zip(asked, await asyncio.gather(*(self._ask(*one) for one in asked.items())), strict=True))
            for number, rights in open_ones.items():
                verdicts[number] = _verdict(verdicts[number], rights, answers)
        return verdicts

    async def _ask(self, name: str, questions: Sequence[Question]) -> Sequence[bool | None]:
        if not questions:
            return []
        if name not in self._policies:
            log.warning("a right names the policy %r, which nobody knows: no access", name)
            return [False] * len(questions)
        policy, seconds = self._policies[name]
        answers: list[bool | None] = []
        try:
            async with asyncio.timeout(max(SECONDS, seconds)):
                for start in range(0, len(questions), MOST_AT_ONCE):
                    async with asyncio.timeout(seconds):
                        answers += await _decisions(policy, questions[start : start + MOST_AT_ONCE])
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a policy, it has not said yes
            log.warning("policy %r cannot decide: %s: %s", name, type(error).__name__, error)
        return answers + [None] * (len(questions) - len(answers))


@contextlib.asynccontextmanager
async def open_policies(tables: Iterable[PolicyTable]) -> AsyncIterator[Policies]:
    """Make the policies of all ``[[policies]]`` tables.

    Raises:
        ConfigurationError: a plug-in is not installed, or refuses its options.
    """
    async with contextlib.AsyncExitStack() as stack:
        policies: dict[str, tuple[Policy, float]] = {}
        for table in (_ALWAYS, *tables):
            try:
                policy = load_plugin(table.plugin).from_options(table.name, table.options)
            except ConfigurationError as error:
                raise ConfigurationError(f"policy {table.name!r}: {error}") from error
            stack.push_async_callback(policy.close)
            policies[table.name] = policy, table.timeout
        yield Policies(policies)


def policy_names(tables: Iterable[PolicyTable]) -> frozenset[str]:
    """What rights can name as their policy where these are all ``[[policies]]`` tables."""
    return frozenset(table.name for table in (_ALWAYS, *tables))


def load_plugin(name: str) -> type[Policy]:
    """The plug-in class called ``name``: a built-in one, or one that an installed package announces.

    Raises:
        ConfigurationError: there is none, or it cannot be imported.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        known = ", ".join(sorted({*found, *_BUILT_IN}))
        raise ConfigurationError(f"policy plug-in {name!r} is not installed; installed are: {known}")
    try:
        plugin: type[Policy] = found[name].load()
    except ImportError as error:
        raise ConfigurationError(f"policy plug-in {name!r} cannot be imported: {error}") from error
    return plugin


async def _decisions(policy: Policy, questions: Sequence[Question]) -> Sequence[bool]:
    answers = await policy.decide(questions)
    if len(answers) != len(questions) or not all(isinstance(answer, bool) for answer in answers):
        raise PolicyError("its answers are not yes or no to each question")
    return answers


def _questions(principal: Principal, row: Row, asked: dict[str, list[Question]], *, files: bool) -> Iterable[_Right]:
    """The rights of ``row`` that leave something open; what they ask is added to ``asked``, by policy."""
    facts = json.loads(row["facts"])
    groups = frozenset(facts.pop("groups") or ()) | set(principal.groups)
    caller, product = Caller(principal.tenant, principal.email, principal.role, groups), Product(**facts)
    for policy, options, decides_on_product, file_level in json.loads(row["questions"]):
        to_policy = asked.setdefault(policy, [])
        by_policy: dict[Action, bool] = {
            "read": decides_on_product,
            "download": files and file_level == "CUSTOM_ACCESS",
        }
        numbers: dict[Action, int] = {}
        for action in [action for action, left_open in by_policy.items() if left_open]:
            numbers[action] = len(to_policy)
            to_policy.append(Question(action, caller, product, options or {}))
        opens_files = files and file_level != "NO_ACCESS"
        yield _Right(policy, numbers.get("read"), numbers.get("download"), files=opens_files)


def _verdict(certain: Verdict, rights: Iterable[_Right], answers: Mapping[str, Sequence[bool | None]]) -> Verdict:
    visible, downloadable = certain.visible, certain.downloadable
    for right in rights:
        of_policy = answers[right.policy]
        read = True if right.read is None else of_policy[right.read]
        download = True if right.download is None else of_policy[right.download]
        visible = _either(visible, read)
        downloadable = _either(downloadable, _both(read, download) if right.files else False)
    return Verdict(visible, downloadable)


def _either(one: bool | None, other: bool | None) -> bool | None:
    if one or other:
        return True
    return None if None in (one, other) else False


def _both(one: bool | None, other: bool | None) -> bool | None:
    if one is False or other is False:
        return False
    return None if None in (one, other) else True
