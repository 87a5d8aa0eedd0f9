"""All checks of the class, in the order in which they are told."""

from __future__ import annotations

from gateway.conformance import documents, downloading, parts, refusing

CHECKS = (*documents.CHECKS, *downloading.CHECKS, *parts.CHECKS, *refusing.CHECKS)
