"""REGARDS' hierarchy of roles, and the tenant's own beside it."""

from __future__ import annotations

HIERARCHY = ("PUBLIC", "REGISTERED_USER", "EXPLOIT", "ADMIN", "PROJECT_ADMIN", "INSTANCE_ADMIN")
"""REGARDS' roles; each may what those before it may."""


def is_at_least(role: str, least: str, parent: str | None = None) -> bool:
    """Whether ``role`` may what ``least``, one of `HIERARCHY`, may.

    Args:
        role: of a caller.
        least: the role that is needed.
        parent: of ``role``, where that is one of the tenant's own: it may what its parent may. A role that is neither
            REGARDS' nor has a parent may what everyone may.
    """
    known = role if role in HIERARCHY else parent
    return HIERARCHY.index(known if known in HIERARCHY else "PUBLIC") >= HIERARCHY.index(least)
