"""Looks at Redis or Valkey, which holds the quota counters."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from gateway.config import Redis
from gateway.doctor.clocks import clock_finding, skew
from gateway.doctor.findings import Finding, Findings, ok, problem, warning
from gateway.errors import ConfigurationError
from gateway.redis.server import NEIGHBOUR_ERRORS as _ERRORS
from gateway.redis.server import Server
from gateway.redis.topology import Topology, topology_for

OLDEST_VERSION = 7

_PROBE = """#!lua
-- What the scripts of quotas do, to a key of nobody, which is gone afterwards.
redis.call('HSET', KEYS[1], 'probe', 1)
redis.call('EXPIRE', KEYS[1], 10)
redis.call('TIME')
redis.call('INFO', 'replication')
redis.call('ZADD', KEYS[2], 1, 'probe')
redis.call('ZCOUNT', KEYS[2], '-inf', '+inf')
redis.call('EXPIRE', KEYS[2], 10)
redis.call('XADD', KEYS[3], '1-1', 'e', 'probe')
redis.call('XTRIM', KEYS[3], 'MINID', '=', '2')
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('HINCRBY', KEYS[1], 'probe', 1)
redis.call('HMGET', KEYS[1], 'probe', 'other')
redis.call('HEXISTS', KEYS[1], 'probe')
local probe = redis.call('HGET', KEYS[1], 'probe')
redis.call('DEL', KEYS[1])
return tonumber(probe) + redis.call('EXISTS', KEYS[1])
"""
_PROBE_ANSWER = 2

_POLICY_REMEDY = "set maxmemory-policy noeviction: without counters nobody may download"


async def look_at_redis(settings: Redis) -> Findings:
    """Each primary is there, new enough, forgets nothing, takes changes, runs scripts, and knows the time."""
    try:
        topology = topology_for(settings, {})
    except ConfigurationError as error:
        yield problem(str(error).removeprefix("redis."), 'write it like "redis://user:password@host:6379/0"')
        return
    try:
        try:
            await topology.find()
        except _ERRORS as error:
            yield problem(f"nobody tells where it is: {type(error).__name__}: {error}", _where(settings))
            return
        primaries = topology.primaries()
        for server in primaries:
            name = f"{server.address}: " if len(primaries) > 1 else ""
            async for finding in _look_at(server.url, settings, _key_at(topology, server)):
                yield dataclasses.replace(finding, text=f"{name}{finding.text}")
    finally:
        await topology.close()


def _where(settings: Redis) -> str:
    if settings.cluster:
        return "start it, or set url of [redis] to nodes of the cluster, with user and password"
    return "start them, or set url and sentinel_service of [redis] to the Sentinels and to the name that they watch"


def _key_at(topology: Topology, server: Server) -> str:
    """A key that nobody uses and that ``server`` holds."""
    while True:
        key = f"gateway:{{doctor-{secrets.token_hex(8)}}}:probe"
        # There may be slots that nobody holds.
        with contextlib.suppress(RedisError):
            if topology.server_for(key) is server:
                return key


async def _look_at(url: str, settings: Redis, key: str) -> Findings:
    client = redis.asyncio.Redis.from_url(url, retry=Retry(NoBackoff(), 0), client_name="download-gateway-doctor")
    async with contextlib.aclosing(client):
        try:
            await client.ping()
        except _ERRORS as error:
            remedy = "start it, or set url of [redis] to where it listens, with user and password"
            yield problem(f"cannot be reached: {type(error).__name__}: {error}", remedy)
            return
        try:
            async for finding in _facts(client, settings, key):
                yield finding
        except _ERRORS as error:
            yield problem(f"does not answer any more: {type(error).__name__}: {error}", "see its log")


async def _facts(client: redis.asyncio.Redis, settings: Redis, key: str) -> Findings:
    try:
        info: Mapping[str, Any] = await client.info()
    except ResponseError as error:
        yield warning(f"does not tell about itself: {error}", "allow its user INFO, or see to the settings yourself")
    else:
        for finding in (_version(info), *_role(info, settings), _eviction(info)):
            yield finding
        yield _persistence(info)
    yield await _scripts(client, key)
    before = time.time()
    with contextlib.suppress(ResponseError):
        seconds, microseconds = await client.time()
        yield clock_finding(skew(seconds + microseconds / 1e6, before, time.time()))


def _version(info: Mapping[str, Any]) -> Finding:
    valkey = info.get("valkey_version")
    name = f"Valkey {valkey}" if valkey else f"version {info.get('redis_version', 'unknown')}"
    text = f"reachable, {name}"
    # Valkey says there which Redis it is like.
    major = str(info.get("redis_version", "")).partition(".")[0]
    if not major.isdigit() or int(major) < OLDEST_VERSION:
        return problem(text, f"upgrade to Redis {OLDEST_VERSION} or later, or to Valkey")
    return ok(text)


def _role(info: Mapping[str, Any], settings: Redis) -> Iterator[Finding]:
    if info.get("role") != "master":
        remedy = "name the primary in url of [redis], or Sentinels that know it, with sentinel_service"
        yield problem("is a replica: it takes no changes", remedy)
    if info.get("cluster_enabled") and not settings.cluster:
        yield problem("is a node of a cluster, which holds a part of the keys only", "set cluster = true in [redis]")


def _eviction(info: Mapping[str, Any]) -> Finding:
    policy, most = info.get("maxmemory_policy"), info.get("maxmemory", 0)
    if policy == "noeviction":
        return ok(f"maxmemory-policy noeviction, maxmemory {info.get('maxmemory_human', most) if most else 'not set'}")
    if most:
        return problem(f"maxmemory-policy {policy}: it evicts counters when memory is short", _POLICY_REMEDY)
    return warning(f"maxmemory-policy {policy}: once maxmemory is set, it evicts counters", _POLICY_REMEDY)


def _persistence(info: Mapping[str, Any]) -> Finding:
    if not info.get("aof_enabled"):
        return ok("appendonly no: after a restart counters are loaded from the ledger")
    if info.get("aof_last_write_status") == "err":
        return problem("appendonly yes, but the last write to disk failed", "see its log; is the disk full?")
    return ok("appendonly yes")


async def _scripts(client: redis.asyncio.Redis, key: str) -> Finding:
    script = client.register_script(_PROBE)
    try:
        answer = await script(keys=[key, f"{key}:running", f"{key}:events"])
    except NoPermissionError as error:
        return problem(f"refuses scripts: {error}", "allow its user what docs/quotas.md lists, on gateway:*")
    except ResponseError as error:
        return problem(
            f"refuses a script that writes: {type(error).__name__}: {error}",
            "quotas need one: see its configuration and its log",
        )
    if answer != _PROBE_ANSWER:
        return problem(f"a script gave {answer!r} instead of {_PROBE_ANSWER}", "is that a Redis or Valkey?")
    return ok("scripts run and may write")
