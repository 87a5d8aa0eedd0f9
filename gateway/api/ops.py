"""What operators and load balancers ask: ``/health``."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from gateway.api.keys import HEALTH
from gateway.ops.audit import AUDIT


async def live(_: web.Request) -> web.Response:
    """``GET /health/live``: the process runs and its loop turns; 200."""
    return web.json_response({"status": "live"})


async def ready(request: web.Request) -> web.Response:
    """``GET /health`` and ``/health/ready``: 200 when downloads can be served, else 503 with the reasons."""
    health = request.app[HEALTH]
    reasons = await health.reasons_not_ready()
    body = {
        "status": "not ready" if reasons else "ready",
        "live": True,
        "ready": not reasons,
        "reasons": reasons,
        "alarms": {**health.alarms(), "lost_records": request.app[AUDIT].lost},
        "notifications": {
            "connected": health.notifications.connected,
            "since": health.notifications.since.isoformat(timespec="seconds").replace("+00:00", "Z"),
        },
    }
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    headers = {"Cache-Control": "no-store", **({"Retry-After": "5"} if reasons else {})}
    return web.json_response(body, status=status, headers=headers)


def routes() -> list[web.RouteDef]:
    """The routes of this family."""
    return [web.get("/health", ready), web.get("/health/ready", ready), web.get("/health/live", live)]
