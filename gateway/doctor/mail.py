"""Looks at the mail server."""

from __future__ import annotations

from gateway.config import Mail
from gateway.doctor.findings import Findings, ok, problem, warning
from gateway.errors import ConfigurationError
from gateway.notices.letters import letters
from gateway.notices.mail import connected, trust
from gateway.notices.model import UnreachableError


async def look_at_mail(settings: Mail) -> Findings:
    """The texts can be used, and the server takes mails of ours. Nothing is sent."""
    try:
        letters(settings, "", None)
        context = trust(settings)
    except ConfigurationError as error:
        yield problem(str(error).removeprefix("mail."), "put it right, or leave the setting out")
        return
    try:
        async with connected(settings, context):
            pass
    except UnreachableError as error:
        yield problem(f"cannot be used: {error}", "start it, or set host, port, tls, user and password of [mail]")
        return
    yield ok("takes mails" + ("" if settings.user is None else ", and lets us log in"))
    if not settings.verify and settings.tls != "none":
        yield warning("its certificate is not looked at", "give its certificates as ca_file, and leave 'verify' out")
