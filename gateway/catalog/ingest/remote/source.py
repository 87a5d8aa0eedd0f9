"""What lies at a URL, whatever it is: another STAC API is loaded, a static catalogue walked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from gateway.catalog.ingest.events import Event, SourceError, Summary
from gateway.catalog.ingest.remote import stac_api
from gateway.catalog.ingest.remote.client import Credentials, open_client
from gateway.catalog.ingest.remote.load import Into, Wanted, load
from gateway.catalog.ingest.remote.origin import root_of
from gateway.catalog.ingest.remote.patience import Patience
from gateway.catalog.ingest.remote.static import walk


async def ingest_url(
    wanted: Wanted,
    into: Into,
    credentials: Credentials,
    *,
    patience: Patience | None = None,
    default_collection: str | None = None,
    restart: bool = False,
    on_event: Callable[[Event], None],
) -> Summary:
    """Take what lies at the URL ``wanted.root`` into the catalogue of a tenant; see `load` and `walk`.

    ``default_collection`` is for items of a static catalogue that name none.

    Raises:
        SourceError: it cannot be read (any further); what was written stays.
        IngestError: another ingest of the tenant is running, or a storage does not answer; likewise.
        asyncpg.PostgresError, OSError: the database failed; likewise.
    """
    try:
        root, origin = root_of(wanted.root)
    except ValueError as error:
        raise SourceError(f"the URL of the source {error}") from error
    async with open_client(origin, credentials, patience or Patience()) as client:
        document = await client.document(root)
        if stac_api.is_api(document):
            wanted = dataclasses.replace(wanted, root=root)
            return await load(client, document, wanted, into, restart=restart, on_event=on_event)
        if wanted.collections or wanted.since is not None:
            raise SourceError(f"{root} is a static catalogue, of which collections or times cannot be chosen")
        return await walk(client, root, into, default_collection=default_collection, on_event=on_event)
