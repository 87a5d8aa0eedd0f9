"""Who may what, said once more: straight from the rules, without SQL."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from gateway.identity.principal import Principal
from gateway.rights.policies import Verdict

ABOVE_RIGHTS = {"ADMIN", "PROJECT_ADMIN", "INSTANCE_ADMIN"}
NO, YES, UNKNOWN = False, True, None


@dataclasses.dataclass(frozen=True)
class Group:
    tenant: str
    name: str
    public: bool
    members: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Product:
    tenant: str
    dataset: str
    name: str
    score: float | None
    level: str | None
    colour: str
    """A property, which policies look at."""

    @property
    def urn(self) -> str:
        return f"urn-{self.tenant}-{self.dataset}-{self.name}"


@dataclasses.dataclass(frozen=True)
class Right:
    tenant: str
    dataset: str
    group: tuple[str, str]
    """Tenant and name: one of another tenant means nobody."""
    metadata: str
    files: str
    least: float | None
    most: float | None
    levels: tuple[str, ...] | None
    policy: str | None
    """A colour that it lets through; ``silent`` for a policy that fails, ``unknown`` for one that nobody has."""


@dataclasses.dataclass(frozen=True)
class World:
    groups: Sequence[Group]
    roles: dict[tuple[str, str], str]
    """Parents of the roles of a tenant."""
    products: Sequence[Product]
    rights: Sequence[Right]

    def verdict(self, who: Principal, product: Product) -> Verdict | None:
        """What ``who`` may with ``product``; None if it is not of his tenant."""
        if who.tenant != product.tenant:
            return None
        role = self.roles.get((who.tenant, who.role), who.role)
        if role in ABOVE_RIGHTS:
            return Verdict(YES, YES)
        visible: bool | None = NO
        downloadable: bool | None = NO
        for right in self.rights:
            if (right.tenant, right.dataset) == (product.tenant, product.dataset) and right.group in self._groups(who):
                sees, has = _of_right(right, product)
                visible, downloadable = best(visible, sees), best(downloadable, has)
        return Verdict(visible, downloadable)

    def is_visible_to_all(self, product: Product) -> bool:
        """Whether everyone sees ``product``, for certain."""
        public = {
            (group.tenant, group.name) for group in self.groups if group.tenant == product.tenant and group.public
        }
        return any(
            right.metadata == "FULL_ACCESS" and right.group in public and _is_good_enough(right, product)
            for right in self.rights
            if (right.tenant, right.dataset) == (product.tenant, product.dataset)
        )

    def sees_dataset(self, who: Principal, dataset: str) -> bool:
        role = self.roles.get((who.tenant, who.role), who.role)
        return role in ABOVE_RIGHTS or any(
            right.metadata != "NO_ACCESS" and right.group in self._groups(who)
            for right in self.rights
            if (right.tenant, right.dataset) == (who.tenant, dataset)
        )

    def _groups(self, who: Principal) -> set[tuple[str, str]]:
        return {
            (group.tenant, group.name)
            for group in self.groups
            if group.tenant == who.tenant
            and (group.public or group.name in who.groups or (who.email is not None and who.email in group.members))
        }


def best(one: bool | None, other: bool | None) -> bool | None:
    if YES in (one, other):
        return YES
    return UNKNOWN if UNKNOWN in (one, other) else NO


def worst(one: bool | None, other: bool | None) -> bool | None:
    if NO in (one, other):
        return NO
    return UNKNOWN if UNKNOWN in (one, other) else YES


def _of_right(right: Right, product: Product) -> tuple[bool | None, bool | None]:
    if not _is_good_enough(right, product):
        return NO, NO
    by_policy = {"silent": UNKNOWN, "unknown": NO, None: NO}.get(right.policy, product.colour == right.policy)
    sees = {"FULL_ACCESS": YES, "CUSTOM_ACCESS": by_policy}.get(right.metadata, NO)
    has = {"INHERITED_ACCESS": YES, "CUSTOM_ACCESS": by_policy}.get(right.files, NO)
    return sees, worst(sees, has)


def _is_good_enough(right: Right, product: Product) -> bool:
    if right.least is not None and (product.score is None or product.score < right.least):
        return False
    if right.most is not None and (product.score is None or product.score > right.most):
        return False
    return right.levels is None or product.level in right.levels
