"""A gateway on a real socket, before a real PostgreSQL and a real Redis, with a catalogue made by hand."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import quote

import aiohttp
import asyncpg

from gateway.api.keys import DOWNLOADS
from gateway.app import create_app
from gateway.config import Config, from_values
from gateway.identity.jwt import sign
from gateway.identity.principal import Principal
from gateway.quotas.limits import ANONYMOUS, Rule, Subject, own_account
from gateway.quotas.service import Quotas
from gateway.server import serving
from gateway.storage import Stat
from tests.canaries import CANARIES

SECRET = "the key of this gateway's tokens, which nobody may ever see: 1234"
TENANT = "esa"
SCIENCE = "science"

FAR: Mapping[str, object] = {
    "name": "far",
    "plugin": "s3",
    "tenants": ["*"],
    "delivery": "redirect",
    "region": "us-east-1",
    "endpoint": "http://storage.example.org",
    "buckets": ["esa"],
    "access_key_id": "key",
    "secret_access_key": "secret",
}
"""``[[storage]]`` of one that redirects; nobody has to run it, as signing takes no server."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file as the test put it there."""

    product: str
    checksum: str
    collection: str
    item: str
    asset: str
    path: Path
    content: bytes
    file_id: int = 0

    @property
    def regards(self) -> str:
        return f"/downloads/{quote(self.product, safe='')}/files/{self.checksum}"

    @property
    def stac(self) -> str:
        parts = (quote(part, safe="") for part in (self.collection, self.item, self.asset))
        return "/collections/{}/items/{}/download/{}".format(*parts)


def principal(
    name: str, *groups: str, role: str = "REGISTERED_USER", tenant: str = TENANT, email: str | None = None
) -> Principal:
    return Principal(tenant, name, email or f"{name}@example.org", role, groups)


SCIENTIST = principal("scientist", SCIENCE)
OUTSIDER = principal("outsider")
ADMIN = principal("admin", role="PROJECT_ADMIN")


def token(who: Principal, *, lifetime: float = 600, secret: str = SECRET, algorithm: str = "HS256") -> str:
    now = datetime.datetime.now(datetime.UTC)
    made = sign(secret, algorithm, who, now=now, lifetime=datetime.timedelta(seconds=lifetime))
    CANARIES.hide(f"token of {who.subject} {len(made)}", made.rpartition(".")[2])
    return made


def bearer(who: Principal) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(who)}"}


class Catalogue:
    """Writes rows and files."""

    def __init__(self, connection: asyncpg.Connection, root: Path) -> None:
        self.connection = connection
        self.root = root

    async def tenant(self, name: str = TENANT) -> int:
        await self.connection.execute("INSERT INTO tenants (name) VALUES ($1) ON CONFLICT DO NOTHING", name)
        value: int = await self.connection.fetchval("SELECT tenant_id FROM tenants WHERE name = $1", name)
        return value

    async def group(self, name: str, *, public: bool = False, tenant: str = TENANT) -> int:
        value: int = await self.connection.fetchval(
            "INSERT INTO groups (tenant_id, name, is_public) VALUES ($1, $2, $3) ON CONFLICT (tenant_id, name) "
            "DO UPDATE SET is_public = $3 RETURNING group_id",
            await self.tenant(tenant),
            name,
            public,
        )
        return value

    async def dataset(self, collection: str, *, tenant: str = TENANT) -> int:
        value: int = await self.connection.fetchval(
            "INSERT INTO datasets (tenant_id, collection_id, urn, body) VALUES ($1, $2, $3, '{}') "
            "ON CONFLICT (tenant_id, collection_id) DO UPDATE SET title = '' RETURNING dataset_id",
            await self.tenant(tenant),
            collection,
            f"URN:AIP:DATASET:{tenant}:{collection}:V1",
        )
        return value

    async def grant(
        self, collection: str, group: int, metadata: str = "FULL_ACCESS", files: str = "INHERITED_ACCESS"
    ) -> None:
        await self.connection.execute(
            "INSERT INTO access_rights (dataset_id, group_id, metadata_level, file_level) VALUES ($1, $2, $3, $4) "
            "ON CONFLICT (dataset_id, group_id) DO UPDATE SET metadata_level = $3, file_level = $4",
            await self.dataset(collection),
            group,
            metadata,
            files,
        )

    async def licence(self, collection: str, url: str = "https://example.org/licence") -> int:
        licence: int = await self.connection.fetchval(
            "INSERT INTO licences (tenant_id, name, url) VALUES ($1, $2, $3) RETURNING licence_id",
            await self.tenant(),
            f"licence of {collection}",
            url,
        )
        await self.connection.execute(
            "UPDATE datasets SET licence_id = $1 WHERE dataset_id = $2", licence, await self.dataset(collection)
        )
        return licence

    async def limit(self, subject: Subject, name: str = "", *, downloads: int = -1, octets: int = -1) -> None:
        """Limit what one may have in all; anonymous callers share what they may."""
        shared = subject == "anonymous"
        await self.rule(Rule(subject, name, shared, "downloads", "total", downloads))
        await self.rule(Rule(subject, name, shared, "bytes", "total", octets))

    async def rule(self, rule: Rule, *, tenant: str = TENANT) -> None:
        await self.connection.execute(
            "INSERT INTO quota_limits "
            "(tenant_id, subject, name, shared, metric, period, value, burst, slow_rate, fail) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) "
            "ON CONFLICT (tenant_id, subject, name, shared, metric, period) "
            "DO UPDATE SET value = $7, burst = $8, slow_rate = $9, fail = $10",
            await self.tenant(tenant),
            *dataclasses.astuple(rule),
        )

    async def file(
        self,
        content: bytes,
        *,
        collection: str = "restricted",
        item: str = "item",
        asset: str = "data",
        name: str | None = None,
        data_type: str = "RAWDATA",
        storage: str = "disk",
        state: str = "ONLINE",
        tenant: str = TENANT,
        checksum: bool = True,
        recorded: bool = True,
        verified: bool = True,
        mime_type: str = "image/tiff",
    ) -> Entry:
        """Write a file below the root, and its rows, as ``ingest --checksum`` would."""
        location = f"{tenant}/{collection}/{item}/{asset}"
        path = self.root / location
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        found = path.stat()
        entry = await self.described(
            content,
            collection=collection,
            item=item,
            asset=asset,
            name=name,
            data_type=data_type,
            tenant=tenant,
            checksum=checksum,
            mime_type=mime_type,
            path=path,
        )
        version = f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"
        modified = datetime.datetime.fromtimestamp(int(found.st_mtime), datetime.UTC)
        stat = Stat(found.st_size, modified, version)
        await self.copy(entry, storage, location, stat if recorded else None, state=state, verified=verified)
        return entry

    async def described(
        self,
        content: bytes,
        *,
        collection: str = "restricted",
        item: str = "item",
        asset: str = "data",
        name: str | None = None,
        data_type: str = "RAWDATA",
        tenant: str = TENANT,
        checksum: bool = True,
        digest: str | None = None,
        size: int | None = None,
        mime_type: str = "image/tiff",
        reference: bool = False,
        path: Path = Path("/nowhere"),
    ) -> Entry:
        """Write the rows of a file of which no storage has a copy yet; ``digest`` and ``size`` unless they are of
        ``content``."""
        urn = f"URN:FEATURE:DATA:{tenant}:{collection}-{item}:V1"
        product = await self.connection.fetchval(
            "INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, body) "
            "VALUES ($1, $2, $3, $4, '{}', '{}') ON CONFLICT (tenant_id, urn) DO UPDATE SET urn = $3 "
            "RETURNING product_id",
            await self.tenant(tenant),
            await self.dataset(collection, tenant=tenant),
            urn,
            item,
        )
        digest = digest or hashlib.sha256(content).hexdigest()
        file: int = await self.connection.fetchval(
            "INSERT INTO files (product_id, asset_key, data_type, checksum, checksum_algorithm, size, mime_type, "
            "file_name, reference, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '{}') RETURNING file_id",
            product,
            asset,
            data_type,
            digest if checksum else None,
            "SHA-256" if checksum else None,
            len(content) if size is None else size,
            mime_type,
            name or f"{item}.tif",
            reference,
        )
        return Entry(urn, digest, collection, item, asset, path, content, file)

    async def copy(
        self,
        entry: Entry,
        storage: str,
        location: str,
        stat: Stat | None,
        *,
        state: str = "ONLINE",
        verified: bool = True,
    ) -> int:
        """Write the row of a copy, as an ingest that found ``stat``; gives its id."""
        value: int = await self.connection.fetchval(
            "INSERT INTO copies (file_id, storage, location, state, size, modified, version, verified_version) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING copy_id",
            entry.file_id,
            storage,
            location,
            state,
            stat and stat.size,
            stat and stat.modified,
            stat and stat.version,
            stat.version if stat and verified else None,
        )
        return value


@dataclasses.dataclass(frozen=True)
class RunningGateway:
    """A gateway that accepts requests, and what it stands on."""

    url: str
    config: Config
    catalogue: Catalogue
    session: aiohttp.ClientSession
    access_log: list[str]
    """Its lines."""
    quotas: Quotas

    async def get(
        self, path: str, who: Principal | None = None, **headers: str
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """GET ``path`` as ``who``; header names with ``_`` for ``-``."""
        return await self.request("GET", path, who, **headers)

    async def request(
        self, method: str, path: str, who: Principal | None = None, **headers: str
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if who is not None:
            fields |= bearer(who)
        async with self.session.request(method, f"{self.url}{path}", headers=fields, allow_redirects=False) as response:
            body = await response.read()
        CANARIES.search_answer(f"{method} {path}", response.headers, body)
        return response, body

    async def usage(self, who: Principal | None) -> tuple[int, int]:
        """Downloads and bytes that are charged to ``who``; to all anonymous callers for None."""
        account = ANONYMOUS if who is None else own_account(who)
        used = await self.quotas.usage(TENANT if who is None else who.tenant, [account])
        return used[account].downloads, used[account].octets


def config_for(database: str, redis_url: str, root: Path, **sections: object) -> Config:
    return from_values(
        {
            "server": {"port": 0, "shutdown_timeout": 1},
            # Longer than the defaults: several tests share the machine.
            "database": {"dsn": database, "timeout": 10},
            "redis": {"url": redis_url, "timeout": 2},
            "identity": {"jwt": [{"algorithms": ["HS256", "HS384", "HS512"], "secret": SECRET}]},
            "storage": [{"name": "disk", "plugin": "local", "tenants": ["*"], "root": str(root)}],
            # Who prepares orders says so: hundreds of gateways would ask for work that nobody has.
            "orders": {"workers": 0},
            "staging": {"workers": 0},
            **sections,
        }
    )


@contextlib.asynccontextmanager
async def running_gateway(config: Config, root: Path) -> AsyncIterator[RunningGateway]:
    connection = await asyncpg.connect(config.database.dsn.get_secret_value())
    access_log: list[str] = []

    def write_line(line: str) -> None:
        access_log.append(line)
        CANARIES.search("access log", line)

    try:
        async with (
            serving(app := create_app(config), config.server, write_line) as url,
            aiohttp.ClientSession(auto_decompress=False) as session,
        ):
            quotas = app[DOWNLOADS].quotas
            yield RunningGateway(url, config, Catalogue(connection, root), session, access_log, quotas)
    finally:
        await connection.close()
