"""The peer: a download route as it is usually written with the libraries that the gateway is made of.

``python -m benchmarks.plain_app --config FILE`` serves one route with the checks of the gateway (token, rights, quota).
``--redirect`` answers with a redirect to a presigned URL and writes an access log, ``--stream`` settles and answers
with the file, ``--auth`` answers with an empty 204 for nginx's auth_request. FILE is a configuration of the gateway.
`benchmarks.plain_app_check` fetches each kind of answer once.
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import aiobotocore.session
import asyncpg
import click
import jwt
import redis.asyncio
from aiohttp import web

Answer = Literal["redirect", "stream", "auth"]
STORE, BUCKET = "http://127.0.0.1:9000", "archive"
"""Presigning asks no server: nothing listens there."""

LOOK_UP = """
SELECT f.size, f.mime_type, c.location,
  coalesce(q.downloads, -1) AS max_downloads, coalesce(q.bytes, -1) AS max_bytes
FROM tenants t JOIN datasets d USING (tenant_id) JOIN products p USING (dataset_id) JOIN files f USING (product_id)
JOIN copies c USING (file_id) JOIN access_rights r ON r.dataset_id = d.dataset_id JOIN groups g USING (group_id)
LEFT JOIN LATERAL (
    SELECT max(value) FILTER (WHERE metric = 'downloads') AS downloads,
           max(value) FILTER (WHERE metric = 'bytes') AS bytes
    FROM quota_limits l
    WHERE l.tenant_id = t.tenant_id AND l.subject = 'user' AND l.name = $2 AND l.period = 'total') q ON true
WHERE t.name = $1 AND d.collection_id = $4 AND p.provider_id = $5 AND f.asset_key = $6
  AND r.file_level <> 'NO_ACCESS' AND (g.is_public OR g.name = ANY($3)
      OR EXISTS (SELECT FROM group_members m WHERE m.group_id = g.group_id AND m.email = $2))
LIMIT 1"""
RESERVE = """
local downloads = redis.call('HINCRBY', KEYS[1], 'downloads', 1)
local bytes = redis.call('HINCRBY', KEYS[1], 'bytes', ARGV[3])
if (tonumber(ARGV[1]) >= 0 and downloads > tonumber(ARGV[1])) or (tonumber(ARGV[2]) >= 0 and bytes > tonumber(ARGV[2]))
then
    redis.call('HINCRBY', KEYS[1], 'downloads', -1)
    redis.call('HINCRBY', KEYS[1], 'bytes', -ARGV[3])
    return 0
end
redis.call('SET', KEYS[2], ARGV[3], 'EX', 86400)
return 1"""
SETTLE = """
local promised = redis.call('GETDEL', KEYS[2])
if promised then redis.call('HINCRBY', KEYS[1], 'bytes', ARGV[1] - promised) end
return 1"""


def create_app(settings: dict[str, Any], answer: Answer) -> web.Application:
    """Make the application from the tables of a gateway's configuration."""
    secret, root = settings["identity"]["jwt"][0]["secret"], Path(settings["storage"][0].get("root", ""))
    pool_key, s3_key = web.AppKey("pool", asyncpg.Pool), web.AppKey("s3", object)
    cache = redis.asyncio.Redis.from_url(settings["redis"]["url"])
    reserve, settle = cache.register_script(RESERVE), cache.register_script(SETTLE)

    async def neighbours(app: web.Application) -> AsyncIterator[None]:
        store = aiobotocore.session.get_session().create_client(
            "s3", "us-east-1", endpoint_url=STORE, aws_access_key_id="key", aws_secret_access_key="secret"
        )
        async with cache, asyncpg.create_pool(settings["database"]["dsn"]) as app[pool_key], store as app[s3_key]:
            yield

    async def download(request: web.Request) -> web.StreamResponse:
        try:
            token = request.headers["Authorization"].split()[1]
            claims = jwt.decode(token, secret, algorithms=["HS256"], options={"require": ["exp", "sub"]})
        except (LookupError, jwt.PyJWTError) as error:
            raise web.HTTPUnauthorized from error
        parts = request.match_info
        parameters = claims["tenant"], claims["email"], claims["groups"], parts["c"], parts["i"], parts["a"]
        async with request.app[pool_key].acquire() as connection:
            row = await connection.fetchrow(LOOK_UP, *parameters)
        if row is None:
            raise web.HTTPForbidden
        keys = [f"plain:{claims['email']}", f"plain:{claims['email']}:{id(request)}"]
        if not await reserve(keys=keys, args=[row["max_downloads"], row["max_bytes"], row["size"]]):
            raise web.HTTPTooManyRequests
        if answer == "stream":
            # FileResponse sends when the handler is over: too late to see what was sent, but the same work.
            await settle(keys=keys, args=[row["size"]])
            return web.FileResponse(root / row["location"])
        if answer == "auth":
            return web.Response(status=204)
        store: Any = request.app[s3_key]
        what = {"Bucket": BUCKET, "Key": row["location"], "ResponseContentType": row["mime_type"]}
        what["ResponseContentDisposition"] = f'attachment; filename="{parts["a"]}"'
        raise web.HTTPTemporaryRedirect(await store.generate_presigned_url("get_object", Params=what, ExpiresIn=60))

    async def live(_: web.Request) -> web.Response:
        return web.json_response({"status": "live"})

    app = web.Application()
    app.router.add_get("/health/live", live)
    app.cleanup_ctx.append(neighbours)
    app.router.add_get("/collections/{c}/items/{i}/download/{a}", download)
    return app


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "config_file", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True)
@click.option("--port", default=8081, show_default=True, type=click.IntRange(1, 65535))
@click.option("--redirect", "answer", flag_value="redirect", default=True, help="Answer with a signed URL.")
@click.option("--stream", "answer", flag_value="stream", help="Answer with the file.")
@click.option("--auth", "answer", flag_value="auth", help="Answer with 204, for nginx's auth_request.")
def main(config_file: Path, port: int, answer: Answer) -> None:
    """Serve downloads in the plain way."""
    app = create_app(tomllib.loads(config_file.read_text()), answer)
    logging.basicConfig(level=logging.INFO)
    access_log = logging.getLogger("aiohttp.access") if answer == "redirect" else None
    web.run_app(app, host="127.0.0.1", port=port, access_log=access_log, print=None)


if __name__ == "__main__":
    main()
