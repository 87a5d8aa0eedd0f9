"""Where nginx 1.22, serving the same file by itself, answers otherwise than the gateway: all of it, and why."""

from __future__ import annotations

DIFFERENCES: dict[str, tuple[str, str]] = {}
