"""What a signed URL costs: the gateway's S3 plug-in beside aiobotocore, in one process, in turn.

``python -m benchmarks.presign``: URLs of as many objects as URLs, with and without a Content-Disposition and type that
the store shall answer with. Both are asked as the gateway asks, with credentials looked up for each URL, and both make
Signature Version 4, which aiobotocore has to be told: by default it makes version 2, which newer stores refuse. First
both sign the same within the same second, and must agree. Nothing is started, and no server is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiobotocore.session
import click
from aiobotocore.config import AioConfig

from benchmarks.harness import Figure, conditions, ending_in_order, in_turn, table
from benchmarks.processes import choose_cores, on_core
from benchmarks.upstream import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, s3_storage
from storage_plugins.s3.plugin import S3Storage

STORE = "https://store.example.org:9000"
LIFETIME = 60
CONTENT_TYPE, DISPOSITION = "image/tiff", "attachment; filename=\"B04.tif\"; filename*=UTF-8''B04%20%C3%A9t%C3%A9.tif"
NAMES = "gateway", "aiobotocore"
TRIES = 100
"""To sign twice within one second."""

Sign = Callable[[str, bool], Awaitable[str]]
"""Signs a URL for a key; tells the store how to answer if asked to."""


class DisagreementError(Exception):
    """The two sign the same in different ways."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """What one round of a side took."""

    urls: int
    seconds: float


FIGURES: tuple[Figure[Sample], ...] = (
    Figure("URLs/s", lambda sample: sample.urls / sample.seconds, 0, ">= 20"),
    Figure("microseconds per URL", lambda sample: 1e6 * sample.seconds / sample.urls, 1),
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--urls", default=5000, show_default=True, type=click.IntRange(1, 10**7), help="In each round.")
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(1, 1000))
def main(urls: int, rounds: int) -> None:
    """Compare the gateway's signer with aiobotocore's, and print medians, spreads and ratios."""
    cores = choose_cores()
    with ending_in_order(), on_core(cores.server):
        packages = (f"{name} {version(name)}" for name in ("aiobotocore", "botocore"))
        click.echo(conditions(f"all in one process on core {cores.server}", "none is used", *packages))
        asyncio.run(_run(urls, rounds))


async def _run(urls: int, rounds: int) -> None:
    async with signers() as sides:
        for answered in (False, True):
            await check(sides, answered=answered)
            samples: tuple[list[Sample], list[Sample]] = ([], [])
            for number, order in in_turn(rounds + 1):
                for index in order:
                    sample = await measure(sides[index], urls, answered=answered)
                    if number > 0:  # one round more warms up
                        samples[index].append(sample)
            fields = "with Content-Disposition and Content-Type" if answered else "without fields of the answer"
            click.echo(f"\n{fields}; median (least-most) of {rounds} rounds in turn, {urls} URLs each")
            click.echo(table(NAMES, samples, FIGURES))


@contextlib.asynccontextmanager
async def signers() -> AsyncIterator[tuple[Sign, Sign]]:
    """The gateway's signer and aiobotocore's, with the same credentials for the same store."""
    (settings,) = tomllib.loads(s3_storage("s3", STORE))["storage"]
    options = {name: value for name, value in settings.items() if name not in ("name", "plugin", "delivery", "tenants")}
    storage = S3Storage.from_options("s3", options)

    async def ours(key: str, answered: bool) -> str:
        wishes = {"content_type": CONTENT_TYPE, "disposition": DISPOSITION} if answered else {}
        return (await storage.sign(f"{BUCKET}/{key}", method="GET", lifetime=LIFETIME, **wishes)).url

    client = aiobotocore.session.get_session().create_client(
        "s3",
        REGION,
        endpoint_url=STORE,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=AioConfig(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(storage.close)
        store = await stack.enter_async_context(client)

        async def theirs(key: str, answered: bool) -> str:
            what = {"Bucket": BUCKET, "Key": key}
            if answered:
                what |= {"ResponseContentType": CONTENT_TYPE, "ResponseContentDisposition": DISPOSITION}
            url: str = await store.generate_presigned_url("get_object", Params=what, ExpiresIn=LIFETIME)
            return url

        yield ours, theirs


async def check(sides: tuple[Sign, Sign], *, answered: bool) -> None:
    """See that both make the same URL, but for the order of its query.

    Raises:
        DisagreementError: they do not.
    """
    for _ in range(TRIES):
        one, other = [_parts(await sign("2026/été/B04 (1).tif", answered)) for sign in sides]
        if one == other:
            return
        if one[1]["X-Amz-Date"] == other[1]["X-Amz-Date"]:
            raise DisagreementError(f"{NAMES[0]} signs {one}, {NAMES[1]} {other}")
    raise DisagreementError(f"they never signed within the same second in {TRIES} tries")


def _parts(url: str) -> tuple[str, dict[str, Any]]:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}", parse_qs(parts.query)


async def measure(sign: Sign, urls: int, *, answered: bool) -> Sample:
    """Sign so many URLs, each of an object of its own."""
    keys = [f"2026/11/{os.urandom(8).hex()}/B{number:05}.tif" for number in range(urls)]
    gc.collect()
    start = time.perf_counter()
    for key in keys:
        await sign(key, answered)
    return Sample(urls, time.perf_counter() - start)


if __name__ == "__main__":
    main()
