"""Tokens of an identity provider at a running gateway."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.app import create_app
from gateway.errors import ConfigurationError
from tests.harness import SCIENCE, SCIENTIST, SECRET, RunningGateway, config_for, running_gateway
from tests.identity.forge import claims, token
from tests.identity.provider import Provider, provider


@contextlib.asynccontextmanager
async def trusting(
    idp: Provider, database: str, redis_url: str, root: Path, **settings: Any
) -> AsyncIterator[RunningGateway]:
    issuer = idp.setting(**settings).model_dump(exclude_unset=True)
    identity = {"jwt": [{"algorithms": ["HS256"], "secret": SECRET}], "issuers": [issuer]}
    async with running_gateway(config_for(database, redis_url, root, identity=identity), root) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        yield running


def bearer(shown: str) -> str:
    return f"Bearer {shown}"


async def test_a_caller_downloads_with_a_token_of_the_identity_provider(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    names = {"role": "realm_access.roles", "sub": "preferred_username"}
    settings: dict[str, Any] = {"tenant": "esa", "role_prefix": "downloads-", "claims": names}
    roles = {"roles": ["offline_access", "downloads-REGISTERED_USER"]}
    async with provider() as idp, trusting(idp, database, redis_url, tmp_path, **settings) as gateway:
        entry = await gateway.catalogue.file(b"bytes")
        good: dict[str, Any] = {"realm_access": roles, "preferred_username": "scientist", "role": ..., "tenant": ...}
        answer, body = await gateway.get(entry.regards, Authorization=bearer(idp.token(**good)))
        assert (answer.status, body) == (200, b"bytes")
        for changes in ({"aud": "account"}, {"iss": f"{idp.issuer}/"}, {"groups": "science"}, {"exp": 1}):
            shown = claims(**{"iss": idp.issuer, "aud": "downloads", **good, **changes})
            answer, _ = await gateway.get(
                entry.regards, Authorization=bearer(token(shown, {"alg": "ES256"}, signed_as="ES256"))
            )
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="downloads", error="invalid_token"'
        answer, _ = await gateway.get(entry.regards, Authorization=bearer(idp.token(**{**good, "groups": []})))
        assert answer.status == 403
        # Tokens of others go on as before.
        answer, _ = await gateway.get(entry.regards, SCIENTIST)
        assert answer.status == 200


async def test_tokens_without_an_audience_are_good_where_the_settings_say_so_alone(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    async with provider() as idp, trusting(idp, database, redis_url, tmp_path, audience=False) as gateway:
        entry = await gateway.catalogue.file(b"bytes")
        for aud, status in ((..., 200), ("downloads", 401), (["downloads"], 401), (None, 401)):
            answer, _ = await gateway.get(entry.regards, Authorization=bearer(idp.token(aud=aud)))
            assert answer.status == status
    async with provider() as idp, trusting(idp, database, redis_url, tmp_path) as gateway:
        answer, _ = await gateway.get(entry.regards, Authorization=bearer(idp.token(aud=...)))
        assert answer.status == 401


async def test_a_gateway_starts_without_the_identity_provider_and_says_503_to_its_callers_alone(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    async def failing(_: web.Request) -> web.Response:
        return web.Response(status=500)

    async def healed(_: web.Request) -> web.Response:
        asked_again.set()
        return web.json_response({"keys": idp.keys})

    asked_again = asyncio.Event()
    async with provider() as idp:
        idp.answer = failing
        async with trusting(idp, database, redis_url, tmp_path, cool_down=1) as gateway:
            entry = await gateway.catalogue.file(b"bytes")
            answer, _ = await gateway.get(entry.regards, Authorization=bearer(idp.token()))
            assert (answer.status, "Retry-After" in answer.headers) == (503, True)
            answer, _ = await gateway.get(entry.regards, SCIENTIST)
            assert answer.status == 200
            idp.answer = healed
            await asked_again.wait()
            answer, body = await gateway.get(entry.regards, Authorization=bearer(idp.token()))
            assert (answer.status, body) == (200, b"bytes")


async def test_a_key_that_cannot_be_used_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    identity = {"jwt": [{"algorithms": ["RS256"], "public_key_file": str(tmp_path / "absent.pem")}]}
    config = config_for("postgresql://nobody@127.0.0.1:1/x", "redis://127.0.0.1:1/0", tmp_path, identity=identity)
    with pytest.raises(ConfigurationError, match="public_key_file"):
        create_app(config)


async def test_nothing_is_accepted_in_the_name_of_the_public_user_of_regards(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"bytes", collection="open")
    await gateway.catalogue.licence("open")
    public = token(claims(sub="public", role="PUBLIC", email="public@regards.com", groups=...), secret=SECRET.encode())
    answer, _ = await gateway.get(f"{entry.regards}?acceptLicense=true", Authorization=bearer(public))
    anonymous, _ = await gateway.get(f"{entry.regards}?acceptLicense=true&scope=esa")
    assert (answer.status, anonymous.status) == (423, 423)
    assert await gateway.catalogue.connection.fetchval("SELECT count(*) FROM licence_acceptances") == 0
