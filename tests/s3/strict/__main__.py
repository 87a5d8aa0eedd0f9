"""The server as a process of its own, for loads that a test's loop has no time for.

``python -m tests.s3.strict BUCKET/KEY=SIZE…`` writes one line of JSON when it listens (the fields of an
`tests.s3.account.Account`) and serves these objects, as `Pattern` makes them, until its standard input ends.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys

from tests.s3.strict import Pattern, strict_s3


async def main(objects: list[str]) -> None:
    """Serve until nobody wants it any more."""
    async with strict_s3() as strict:
        for text in objects:
            place, _, size = text.rpartition("=")
            bucket, _, key = place.partition("/")
            strict.store.put(bucket, key, Pattern(int(size)))
        sys.stdout.write(json.dumps(dataclasses.asdict(strict.account)) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(main(sys.argv[1:]))
