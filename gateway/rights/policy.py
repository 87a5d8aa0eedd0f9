"""What a policy is: it chooses the products that a right with CUSTOM_ACCESS opens.

Plug-ins import this module only (beside `gateway.errors.ConfigurationError`). A package announces one as an entry point
in the group ``gateway.policies``; a ``[[policies]]`` table gives it a name and options; rights refer to that name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, Self

Action = Literal["read", "download"]
"""To see a product, or to have its private files."""


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    tenant: str
    email: str | None
    """None for an anonymous caller."""
    role: str
    groups: frozenset[str]
    """Names of his access groups: by token, by membership, and public ones."""


@dataclasses.dataclass(frozen=True, slots=True)
class Product:
    """What is asked for."""

    urn: str
    collection: str
    """Id of the STAC Collection."""
    item: str
    """Id of the STAC Item."""
    properties: Mapping[str, Any]
    """As the catalogue has them: JSON."""
    quality_score: float | None
    quality_level: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """Whether a caller may do something with a product."""

    action: Action
    caller: Caller
    product: Product
    options: Mapping[str, Any]
    """``policy_options`` of the right."""


class PolicyError(Exception):
    """A policy cannot decide: its service does not answer, or the options of a right make no sense.

    Whoever depends on its answer is refused with 503. The message is for the log.
    """


class Policy(Protocol):
    """What every plug-in has. It decides on a single download as on each row of a listing."""

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Self:
        """Make the policy from the options of its ``[[policies]]`` table that the gateway itself does not read.

        Called where an event loop runs.

        Raises:
            ConfigurationError: an option is unknown, missing or wrong; the message names it.
        """

    async def decide(self, questions: Sequence[Question]) -> Sequence[bool]:
        """Yes or no to each of up to 100 questions, in their order.

        It may be cancelled, and is when it takes longer than ``timeout`` of its table.

        Raises:
            PolicyError: it cannot tell.
        """

    async def close(self) -> None:
        """Give back what it holds. Nothing is asked any more."""
