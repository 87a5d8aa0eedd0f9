"""URLs of Redis that list several hosts."""

from __future__ import annotations

import pytest

from gateway.config import Redis
from gateway.errors import ConfigurationError
from gateway.redis.scripts import open_scripts
from gateway.redis.url import address, each_host, with_host, without_credentials

SECRET = "hush"


@pytest.mark.parametrize(
    ("url", "urls"),
    [
        ("redis://h", ["redis://h"]),
        ("redis://u:p%2C%40@h:1,g/3?a=b", ["redis://u:p%2C%40@h:1/3?a=b", "redis://u:p%2C%40@g/3?a=b"]),
        ("rediss://:p,q@[::1]:1,[::2]:2/", ["rediss://:p,q@[::1]:1/", "rediss://:p,q@[::2]:2/"]),
        ("unix:///run/redis,1.sock?db=2", ["unix:///run/redis,1.sock?db=2"]),
    ],
)
def test_each_host_has_an_url(url: str, urls: list[str]) -> None:
    assert each_host(url) == urls


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@h:port",
        f"redis://:{SECRET}@h:0",
        f"redis://:{SECRET}@h:65536",
        f"redis://:{SECRET}@h:1,",
        f"redis://:{SECRET}@",
        f"redis://:{SECRET}@[h",
        f"redis://:{SECRET}℀@h",
        f"redis://:{SECRET}/{SECRET}@h:6379",
        f"redis://:{SECRET}#{SECRET}@h:6379",
        f"redis://h/{SECRET}",
        f"redis://h:1/{SECRET}@g",
    ],
)
def test_what_is_wrong_is_said_without_the_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"must|is no URL") as caught:
        each_host(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_host_can_take_the_place_of_another() -> None:
    assert with_host("rediss://u:p@h:1/3?a=b", "::1", 2) == "rediss://u:p@[::1]:2/3?a=b"
    assert with_host("redis://h", "g", 2) == "redis://g:2"
    assert without_credentials("rediss://u:p@h/3?a=b", 26379) == "rediss://h:26379?a=b"
    assert address("redis://u:p@h/3") == "h:6379"
    assert address("redis://u:p@[::1]:7/3") == "[::1]:7"
    assert address("unix:///run/redis.sock") == "/run/redis.sock"


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"url": "redis://a,b"}, "lists several hosts"),
        ({"url": "redis://a,b", "cluster": True, "sentinel_service": "s"}, "exclude each other"),
        ({"url": "redis://a", "sentinel_password": "p"}, "needs a 'sentinel_service'"),
        ({"url": "redis://a/1", "cluster": True}, "no other database"),
        ({"url": "unix:///a", "cluster": True}, "must be redis:// or rediss://"),
        ({"url": "unix:///a", "sentinel_service": "s"}, "must be redis:// or rediss://"),
        ({"url": "redis://a:b"}, "port from 1 to 65535"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Redis.model_validate(values)


@pytest.mark.parametrize("url", [f"redis://:{SECRET}@h?{SECRET}=1", f"redis://:{SECRET}@h?max_connections={SECRET}"])
async def test_options_that_cannot_be_used_are_refused_without_the_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="an option after") as caught:
        async with open_scripts(Redis.model_validate({"url": url}), {}):
            pass
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("more", [{}, {"cluster": True}, {"sentinel_service": "s"}])
async def test_a_redis_that_is_not_there_is_named_without_the_password(more: dict[str, object]) -> None:
    settings = Redis.model_validate({"url": f"redis://:{SECRET}@127.0.0.1:1", **more})
    with pytest.raises(ConfigurationError, match="cannot be reached there") as caught:
        async with open_scripts(settings, {}):
            pass
    assert SECRET not in str(caught.value)
