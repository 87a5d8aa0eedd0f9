"""Keys are fetched from where the settings say, and nothing else is taken for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.config import Identity, Issuer
from gateway.errors import ConfigurationError
from gateway.identity.discovery import MOST_BYTES, KeySet, NotFetchedError, fetch_keys, key_client, trust
from gateway.identity.jwks import parse_key_set
from gateway.identity.jwt import open_tokens
from gateway.identity.networks import Networks
from tests.identity.forge import EC_KEYS, RSA_KEY, jwk
from tests.identity.provider import KEY, Handler, Provider, provider
from tests.s3.strict import strict_s3
from tests.s3.strict.certificate import server_context


@pytest.fixture
async def idp() -> AsyncIterator[Provider]:
    async with provider() as it:
        yield it


async def fetched(setting: Issuer) -> KeySet:
    async with key_client(trust(setting)) as session:
        return await fetch_keys(session, setting)


async def refusal(setting: Issuer) -> str:
    with pytest.raises(NotFetchedError) as caught:
        await fetched(setting)
    return str(caught.value)


async def test_keys_are_found_by_discovery(idp: Provider) -> None:
    found = await fetched(idp.setting())
    assert [(key.kid, key.algorithms, key.key) for key in found.keys] == [("first", ("ES256",), KEY.public_key())]
    assert found.fresh == 300
    assert [request.path for request in idp.requests] == ["/realm/.well-known/openid-configuration", "/keys"]


async def test_keys_are_fetched_without_discovery_where_their_place_is_known(idp: Provider) -> None:
    found = await fetched(idp.setting(issuer="any text at all", jwks_url=f"{idp.url}/keys"))
    assert [key.kid for key in found.keys] == ["first"]
    assert [request.path for request in idp.requests] == ["/keys"]


async def test_a_slash_at_the_end_of_the_issuer_is_not_doubled(idp: Provider) -> None:
    idp.discovery = {"issuer": f"{idp.issuer}/"}
    assert (await fetched(idp.setting(issuer=f"{idp.issuer}/"))).keys


async def test_a_request_tells_nothing_and_keeps_nothing(idp: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    idp.headers["Set-Cookie"] = "session=1"
    async with key_client(trust(idp.setting())) as session:
        await fetch_keys(session, idp.setting())
        await fetch_keys(session, idp.setting())
    for request in idp.requests:
        assert set(request.headers) == {"Host", "Accept", "Accept-Encoding", "User-Agent"}
        assert request.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "issuer", ["https://evil.example.org", "", None, 1, "{issuer}/", "{issuer}x", "{ISSUER}", ["{issuer}"]]
)
async def test_a_discovery_document_of_another_issuer_is_refused(idp: Provider, issuer: Any) -> None:
    if isinstance(issuer, str):
        issuer = issuer.replace("{issuer}", idp.issuer).replace("{ISSUER}", idp.issuer.upper())
    idp.discovery = {"issuer": issuer}
    assert "of another issuer" in await refusal(idp.setting())
    assert idp.fetches == 0


@pytest.mark.parametrize(
    "place",
    [
        "https://evil.example.org/keys",
        "https://127.0.0.1/keys",
        "http://127.0.0.1:1/keys",
        "http://10.0.0.1/keys",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost/keys",
        "file:///etc/passwd",
        "{url}@evil.example.org/keys",
        "//127.0.0.1/keys",
        "/keys",
        "",
        None,
        1,
        ["{url}/keys"],
    ],
)
async def test_keys_elsewhere_than_at_the_hosts_of_the_settings_are_not_fetched(idp: Provider, place: Any) -> None:
    idp.discovery = {"jwks_uri": place.replace("{url}", idp.url) if isinstance(place, str) else place}
    assert "'jwks_uri'" in await refusal(idp.setting())
    assert idp.fetches == 0


async def test_keys_may_be_at_another_host_that_the_settings_name(idp: Provider) -> None:
    async with provider() as other:
        idp.discovery = {"jwks_uri": f"{other.url}/keys"}
        assert "at none of 'hosts'" in await refusal(idp.setting())
        assert other.fetches == 0
        assert (await fetched(idp.setting(hosts=[other.url.removeprefix("http://")]))).keys
        assert "at none of 'hosts'" in await refusal(idp.setting(hosts=["127.0.0.1"]))


def answering(status: int = 200, body: bytes = b"", **headers: str) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=fields)

    return answer


GOOD = json.dumps({"keys": [jwk(KEY.public_key(), kid="first")]}).encode()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(idp: Provider, status: int) -> None:
    async with provider() as other:
        idp.answer = answering(status, Location=f"{other.url}/keys")
        assert f"answered {status}" in await refusal(idp.setting())
        assert other.requests == []


@pytest.mark.parametrize("status", [201, 204, 400, 401, 404, 500, 503])
async def test_only_200_is_an_answer(idp: Provider, status: int) -> None:
    idp.answer = answering(status, b"" if status == 204 else GOOD)
    assert f"answered {status}" in await refusal(idp.setting())


@pytest.mark.parametrize("declared", [True, False])
async def test_more_bytes_than_the_limit_are_not_read(idp: Provider, declared: bool) -> None:
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Length": str(2**30)} if declared else {})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while sent < 2**26:
                await response.write(b" " * 2**16)
                sent += 2**16
        return response

    idp.answer = answer
    assert f"more than {MOST_BYTES} bytes" in await refusal(idp.setting())
    assert sent < 2**26


async def test_a_set_as_large_as_the_limit_is_read(idp: Provider) -> None:
    idp.answer = answering(body=GOOD + b" " * (MOST_BYTES - len(GOOD)))
    assert (await fetched(idp.setting())).keys


@pytest.mark.parametrize("when", ["before the header", "within the body"])
async def test_a_provider_that_takes_too_long_is_given_up_on(idp: Provider, when: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if when == "within the body":
            await response.prepare(request)
            await response.write(b'{"keys":')
        await asyncio.Event().wait()
        return response

    idp.answer = answer
    assert "did not answer within 0.2 s" in await refusal(idp.setting(timeout=0.2))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [1, null, [], "x"]}',
        b'{"keys": [{"kty": "oct", "k": "AAAA"}]}',
        b"\xff\xfe{}",
        b"[" * 100_000,
        GOOD[:-1],
    ],
)
async def test_what_is_no_set_of_keys_is_refused(idp: Provider, body: bytes) -> None:
    idp.answer = answering(body=body)
    assert "gave" in await refusal(idp.setting())


async def test_a_compressed_answer_is_not_unpacked(idp: Provider) -> None:
    idp.answer = answering(body=b"\x1f\x8b" + b"x" * 100, Content_Encoding="gzip")
    assert "gave no JSON" in await refusal(idp.setting())


async def test_nobody_there_is_told_by_host_and_port_alone(idp: Provider) -> None:
    setting = idp.setting(jwks_url=f"{idp.url}/keys?secret=canary")
    idp.answer = answering(body=b"canary")
    assert "canary" not in await refusal(setting)
    gone = Provider()
    async with gone.running():
        pass
    message = await refusal(gone.setting(jwks_url=f"{gone.url}/keys?secret=canary"))
    assert message.startswith(gone.url.removeprefix("http://"))
    assert "canary" not in message


async def test_a_certificate_that_nobody_vouches_for_is_refused(idp: Provider, tmp_path: Path) -> None:
    async with strict_s3(tls=True) as strict:
        endpoint = str(strict.account.endpoint)
        assert endpoint.startswith("https://")
        assert "does not trust" in await refusal(idp.setting(issuer="x", jwks_url=f"{endpoint}/keys"))


async def test_a_provider_may_have_a_certificate_of_an_authority_that_the_settings_name(tmp_path: Path) -> None:
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
    context, authority = server_context(tmp_path / "ours")
    _, another = server_context(tmp_path / "other")
    async with provider(context) as idp:
        assert (await fetched(idp.setting(insecure_http=False, ca_file=str(authority)))).keys
        for ca_file in (None, str(another)):
            assert "does not trust" in await refusal(idp.setting(insecure_http=False, ca_file=ca_file))
        # The name counts, too.
        idp.discovery = {"issuer": (named := idp.issuer.replace("127.0.0.1", "127.0.0.2"))}
        assert "127.0.0.2" in await refusal(idp.setting(issuer=named, ca_file=str(authority)))


@pytest.mark.parametrize("text", [None, "", "no certificate"])
def test_a_file_without_certificates_is_told_at_the_start(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "authority.pem"
    if text is not None:
        file.write_text(text)
    setting = Issuer(issuer="https://idp.example.org", audience="a", algorithms=["RS256"], ca_file=file)
    with pytest.raises(ConfigurationError, match=r"identity\.issuers: ca_file .*authority\.pem"):
        open_tokens(Identity(issuers=[setting]), Networks(32, 64))


async def test_every_key_of_a_large_set_is_read_in_a_thread(idp: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def watched(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return parse_key_set(*arguments)

    monkeypatch.setattr("gateway.identity.discovery.parse_key_set", watched)
    idp.keys = [jwk(key.public_key(), kid=str(n)) for n in range(200) for key in (RSA_KEY, EC_KEYS["ES256"])]
    assert len((await fetched(idp.setting())).keys) == 64
    assert threads
    assert threading.main_thread() not in threads


async def test_the_client_has_no_connection_left_when_it_ends(idp: Provider) -> None:
    async with key_client(trust(idp.setting())) as session:
        await fetch_keys(session, idp.setting())
    assert session.closed
    assert isinstance(session.connector, aiohttp.BaseConnector | None)
