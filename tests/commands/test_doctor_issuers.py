"""``gateway doctor`` looks at identity providers."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from tests.commands.support import Stand, run
from tests.identity.forge import RSA_KEY, jwk
from tests.identity.provider import Provider, provider


def table(idp: Provider, **changes: object) -> dict[str, Any]:
    return {"identity.issuers": [{**idp.setting().model_dump(exclude_unset=True), **changes}]}


async def test_the_keys_of_an_issuer_are_told(stand: Stand) -> None:
    async with provider() as idp:
        idp.keys.append(jwk(RSA_KEY.public_key(), kid="second"))
        report = await run("doctor", "--config", stand.configure(**table(idp)))
    assert report.exit_code == 0
    keys = "EC secp256r1 (ES256), RSA of 2048 bits (RS256)"
    assert f"ok       issuer {idp.issuer}: its keys, fresh for 300 s: {keys}" in report.output
    assert "ok       identity.jwt: key 1 (HS256): a secret" in report.output


async def test_an_issuer_whose_keys_cannot_be_fetched_is_a_problem_and_the_reason_is_told(stand: Stand) -> None:
    async def moved(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    async with provider() as idp:
        idp.answer = moved
        report = await run("doctor", "--config", stand.configure(**table(idp)))
        assert report.exit_code == 1
        assert f"problem  issuer {idp.issuer}: its keys cannot be fetched: " in report.output
        assert "answered 302" in report.output
        other = await run("doctor", "--config", stand.configure(**table(idp, issuer=f"{idp.url}/realm/")))
        assert "of another issuer" in other.output
        untrusted = await run("doctor", "--config", stand.configure(**table(idp, ca_file="/nowhere/authority.pem")))
        assert untrusted.exit_code == 1
        assert (
            f"problem  issuer {idp.issuer}: identity.issuers: ca_file /nowhere/authority.pem: cannot"
            in untrusted.output
        )
    gone = await run("doctor", "--config", stand.configure(**table(idp)))
    assert "gave no answer" in gone.output
    assert "'issuer' is its exact name" in gone.output
