"""Settings of the gateway: one TOML file, then environment variables over it.

An environment variable is named ``GATEWAY_`` and the path to the setting with ``__`` between its parts, in capitals:
``GATEWAY_DATABASE__DSN`` is ``dsn`` of ``[database]``. ``config.example.toml`` shows every setting.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from gateway.errors import ConfigurationError
from gateway.http.forwarded import Network
from gateway.redis.url import each_host

ENVIRONMENT_PREFIX = "GATEWAY_"

HMAC_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Shortest secret of each algorithm in bytes: that of its hash (RFC 7518 §3.2)."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]
Text = Annotated[str, Field(min_length=1)]
DataType = Literal[
    "RAWDATA", "QUICKLOOK_SD", "QUICKLOOK_MD", "QUICKLOOK_HD", "DOCUMENT", "THUMBNAIL", "OTHER", "AIP", "DESCRIPTION"
]
"""REGARDS' types of files."""


def _prefix(value: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", value):
        raise ValueError("must be empty or start with '/' and not end with one, like '/api/v1/rs-catalog'")
    return value


Prefix = Annotated[str, AfterValidator(_prefix)]


def _dsn(*schemes: str) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        if _scheme(value.get_secret_value()) not in schemes:
            raise ValueError(f"must be a URL that starts with {' or '.join(f'{s}://' for s in schemes)}")
        return value

    return AfterValidator(check)


def _scheme(url: str) -> str:
    """The scheme of ``url``; nothing of a malformed one, as the library's complaint would quote its password."""
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""


def _network(value: object) -> Network:
    try:
        return ipaddress.ip_network(str(value), strict=False)
    except ValueError as error:
        raise ValueError("must be an IP address or network, like '127.0.0.1' or '10.0.0.0/8'") from error


class Section(BaseModel):
    """A table of the TOML file; a name it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(Section):
    """``[server]``: where the gateway listens."""

    host: Text = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8080
    """TCP port; 0 takes a free one."""
    shutdown_timeout: Seconds = 30
    """Seconds that running downloads get to end after SIGTERM, before they are cut."""

    trusted_proxies: list[Annotated[Network, BeforeValidator(_network)]] = []
    """Addresses or networks of the proxies in front (``127.0.0.1``, ``10.0.0.0/8``): only what they write in Forwarded
    and X-Forwarded-* is believed, and only they are handed files to send."""


class Database(Section):
    """``[database]``: PostgreSQL, which holds the catalogue, rights, licences and limits."""

    dsn: Annotated[SecretStr, _dsn("postgresql", "postgres")]
    """``postgresql://user:password@host:port/name``."""
    pool_size: Annotated[int, Field(ge=1, le=1000)] = 8
    """Most connections of one gateway process: calls share round trips, so that few of them are opened."""
    timeout: Seconds = 2
    """Seconds that a look-up may take, waiting for a free connection included; then the answer is 503."""


def _redis_url(value: SecretStr) -> SecretStr:
    each_host(value.get_secret_value())
    return value


class Redis(Section):
    """``[redis]``: Redis 7 or Valkey, which holds the quota counters: one server, a cluster, or one behind Sentinel."""

    url: Annotated[SecretStr, _dsn("redis", "rediss", "unix"), AfterValidator(_redis_url)]
    """``redis://user:password@host:port/db``; ``rediss://`` for TLS, ``unix:///path`` for a socket. For a cluster or
    for Sentinel it may list several hosts, ``redis://user:password@host:port,host:port``. User, password and TLS are
    those of the servers that hold data."""
    cluster: bool = False
    """Whether ``url`` names nodes of a Redis Cluster; the others are found through them."""
    sentinel_service: Text | None = None
    """Name of the service whose primary holds the counters; ``url`` names Sentinels then."""
    sentinel_password: SecretStr | None = None
    """Of the Sentinels themselves, when they want one."""
    pool_size: Annotated[int, Field(ge=1, le=1000)] = 16
    """Most connections of one gateway process to one server: calls share round trips, so that few are opened."""
    timeout: Seconds = 0.5
    """Seconds that a reservation may take, waiting for a free connection included; then the answer is 503."""

    @model_validator(mode="after")
    def _one_topology(self) -> Self:
        url = self.url.get_secret_value()
        if self.cluster and self.sentinel_service is not None:
            raise ValueError("'cluster' and 'sentinel_service' exclude each other")
        if self.sentinel_password is not None and self.sentinel_service is None:
            raise ValueError("'sentinel_password' needs a 'sentinel_service'")
        if not self.cluster and self.sentinel_service is None:
            if len(each_host(url)) > 1:
                raise ValueError("'url' lists several hosts, which needs 'cluster = true' or a 'sentinel_service'")
        elif _scheme(url) == "unix":
            raise ValueError("'url' must be redis:// or rediss:// for a cluster or for Sentinel")
        if self.cluster and urlsplit(url).path.strip("/0"):
            raise ValueError("'url' must end with /0 or with nothing: a cluster has no other database")
        return self


class JwtKey(Section):
    """``[[identity.jwt]]``: one key that bearer tokens may be signed with, and the algorithms it is pinned to."""

    algorithms: Annotated[list[Literal["HS256", "HS384", "HS512", "RS256"]], Field(min_length=1)]
    """The only values of a token's ``alg`` that this key verifies."""
    secret: SecretStr | None = None
    """For HS algorithms: the shared secret, at least as long as the hash (32, 48, 64 bytes)."""
    public_key_file: Path | None = None
    """For RS algorithms: PEM file with the public key."""
    issuer: Text | None = None
    """Required value of ``iss``; not looked at when absent (REGARDS sets none)."""
    audience: Text | None = None
    """Required value of ``aud``; not looked at when absent."""

    @model_validator(mode="after")
    def _one_key_of_the_right_kind(self) -> Self:
        kinds = {algorithm[:2] for algorithm in self.algorithms}
        if kinds == {"HS"}:
            if self.secret is None or self.public_key_file is not None:
                raise ValueError("HS algorithms need 'secret' and no 'public_key_file'")
            if "replace-me" in self.secret.get_secret_value():
                raise ValueError("'secret' is the placeholder of the example, which everybody knows")
            length = len(self.secret.get_secret_value().encode())
            shortest = max(HMAC_SECRET_BYTES[algorithm] for algorithm in self.algorithms)
            if length < shortest:
                raise ValueError(
                    f"'secret' has {length} bytes; {', '.join(self.algorithms)} need at least {shortest} "
                    "(openssl rand -base64 48 makes a good one)"
                )
        elif kinds == {"RS"}:
            if self.public_key_file is None or self.secret is not None:
                raise ValueError("RS algorithms need 'public_key_file' and no 'secret'")
        else:
            raise ValueError("'algorithms' mixes HS and RS: give each its own [[identity.jwt]]")
        return self


class Identity(Section):
    """``[identity]``: how callers show who they are."""

    jwt: Annotated[list[JwtKey], Field(min_length=1)]
    """Keys of bearer tokens; the first that fits a token's ``alg`` and verifies it is taken."""
    leeway: Annotated[float, Field(ge=0, le=60)] = 10
    """Seconds that the clocks of token issuers may differ from ours."""


class Api(Section):
    """``[api]``: where each API family stands."""

    public_url: str | None = None
    """Base of every absolute link, like ``https://data.example.org``; absent, links take the request's Host."""
    regards_prefix: Prefix = ""
    """Before ``/downloads/…``; REGARDS itself has ``/api/v1/rs-catalog``."""
    stac_prefix: Prefix = ""
    """Before ``/collections/…``."""

    @field_validator("public_url")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if _scheme(value) not in ("http", "https") or not urlsplit(value).netloc or set(value) & set("?#"):
            raise ValueError("must be an absolute http or https URL without query, like 'https://data.example.org'")
        return value.rstrip("/")


class Delivery(Section):
    """``[delivery]``: how bytes leave."""

    send_timeout: Seconds = 60
    """Seconds that a client may take no byte at all before its connection is cut."""
    min_rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1024
    """Bytes a second that a client must take on average, or its connection is cut; 0 asks nothing."""
    min_rate_grace: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60
    """Seconds from the start of a download in which its rate is not looked at."""
    storage_timeout: Seconds = 30
    """Seconds that a storage may take for one step (to open a file, to read some of it); then 503, or a cut."""
    redirect_agents: list[Annotated[str, Field(pattern=r"^[^/\s]+/[0-9]+(\.[0-9]+)*$")]] = [
        "curl/7.83",
        "python-requests/2.20",
        "python-httpx/0.18",
        "aiohttp/3.8",
        "Mozilla/5.0",
    ]
    """Clients, with their oldest version, that are proven not to send a token on to another host: only these are
    redirected where ``delivery`` is ``auto`` and the request has an Authorization field."""


class Quotas(Section):
    """``[quotas]``: how downloads are counted."""

    window: Annotated[int, Field(ge=1)] = 3600
    """Seconds in which ranges, resumes and retries of the same file by the same caller count as one download."""
    lease_ttl: Annotated[int, Field(ge=3)] = 60
    """Seconds that a running download keeps its slot without a sign of life from its process, which gives one three
    times as often. A download whose process died is charged what it may have sent by then."""
    max_unconfirmed: Annotated[int, Field(ge=100)] = 100_000
    """Events of one tenant that may wait for the ledger in PostgreSQL; beyond, downloads are refused with 503."""
    capped_downloads: Annotated[int, Field(ge=1)] = 4
    """Downloads of one caller, and starts of his in a second, that a process admits on its own while Redis is out of
    reach, if all limits of the caller have \"fail\" set to \"capped\"."""
    process_timeout: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 10
    """Seconds after which a gateway process that was not seen counts as dead. When Redis has lost counters, nobody is
    admitted before every process that lives has told what it did."""
    metered_data_types: list[DataType] = ["RAWDATA"]
    """Data types of files whose downloads count; those of all others are free."""
    anonymous_ipv4_prefix: Annotated[int, Field(ge=0, le=32)] = 32
    """Bits that the addresses of an IPv4 network have in common: anonymous callers of a network are counted as one."""
    anonymous_ipv6_prefix: Annotated[int, Field(ge=0, le=128)] = 64
    """As ``anonymous_ipv4_prefix``, for IPv6."""


class StorageLocation(BaseModel):
    """``[[storage]]``: one storage location. Settings not named here are options of its plug-in."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Name by which copies refer to it; never change it once files are ingested."""
    plugin: Text
    """Name of the installed plug-in (entry point group ``gateway.storage``)."""
    type: Literal["ONLINE", "NEARLINE", "OFFLINE"] = "ONLINE"
    """ONLINE serves at once, NEARLINE after a restore, OFFLINE never."""
    priority: int = 0
    """Of several copies the one at the lowest number is served."""
    tenants: Annotated[list[Text], Field(min_length=1)]
    """Tenants whose files it may hold; ``["*"]`` for all. A copy of another tenant is neither ingested nor served."""
    prefixes: Annotated[list[Annotated[str, Field(pattern=r"^(.*/)?$")]], Field(min_length=1)] = [""]
    """What locations may start with, each with a slash at its end; ``{tenant}`` stands for the tenant's name, so that
    ``["{tenant}/"]`` keeps the files of each tenant apart. Anything else is neither ingested nor served."""
    delivery: Literal["auto", "stream", "redirect", "accel"] = "auto"
    """How its files leave: ``stream`` through this process (from a disk by sendfile), ``redirect`` to a signed URL of
    the storage, ``accel`` by the proxy in front (see ``offload``). ``auto`` takes the cheapest that is safe for the
    request and client. What a way cannot do is streamed: HEAD, several ranges, preconditions."""
    redirect_ttl: Annotated[float, Field(ge=1, le=604800)] = 60
    """Seconds that a signed URL works, at most; less where the credentials end sooner."""
    redirect_max_age: Annotated[int, Field(ge=0)] = 0
    """Seconds that a client may keep a redirect; below ``redirect_ttl``. 0 is ``no-store``."""
    redirect_min_size: Annotated[int, Field(ge=0)] = 65536
    """Bytes from which on ``auto`` redirects: for a smaller file the second request costs the client more."""
    verify: Literal["first", "always", "never"] = "first"
    """When its bytes are held against the catalogue's checksum: ``first``, once for each version of each copy, on its
    first delivery or in the background right after; ``always``, on each whole delivery, which then neither sendfile nor
    a redirect can make; ``never``."""
    offload: Literal["X-Accel-Redirect", "X-Sendfile"] | None = None
    """Have the proxy in front send the files, told by this field: for requests of ``trusted_proxies`` that name it in
    X-Sendfile-Type."""
    offload_prefix: Annotated[str, Field(pattern=r"^(/[^/\x00-\x20]+)+$")] | None = None
    """Where the proxy finds the storage: for nginx the path of an internal location, for X-Sendfile the directory."""

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if (self.offload is None) != (self.offload_prefix is None):
            raise ValueError("'offload' and 'offload_prefix' go together: set both or none")
        if self.delivery == "accel" and self.offload is None:
            raise ValueError("delivery 'accel' needs 'offload' and 'offload_prefix'")
        if self.redirect_max_age and self.redirect_max_age >= self.redirect_ttl:
            raise ValueError("'redirect_max_age' must be below 'redirect_ttl': a kept redirect would lead nowhere")
        if self.verify == "always" and self.delivery in ("redirect", "accel"):
            raise ValueError("verify 'always' needs delivery 'stream' or 'auto': other bytes do not pass through here")
        return self

    @property
    def options(self) -> dict[str, object]:
        """The options of the plug-in, by name."""
        return dict(self.model_extra or {})

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        """Show which options there are; their values may be secrets of the plug-in."""
        for name, value in super().__repr_args__():
            yield name, "…" if name in self.options else value


class Config(BaseSettings):
    """All settings. Made by `load`; a Config that exists is valid."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    server: Server = Server()
    database: Database
    redis: Redis
    identity: Identity
    api: Api = Api()
    delivery: Delivery = Delivery()
    quotas: Quotas = Quotas()
    storage: Annotated[list[StorageLocation], Field(min_length=1)]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before what `load` read from the file."""
        return env_settings, init_settings

    @field_validator("storage")
    @classmethod
    def _names_differ(cls, value: list[StorageLocation]) -> list[StorageLocation]:
        names = [location.name for location in value]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"more than one storage location is named {', '.join(sorted(twice))}; names must differ")
        return value


def load(file: Path | None) -> Config:
    """Read the settings from ``file`` (TOML; None for no file) and the environment.

    Raises:
        ConfigurationError: one line for each setting that is missing or wrong, naming it and what would be right.
    """
    values: dict[str, object] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{file}: is not TOML: {error}") from error
    return from_values(values)


def from_values(values: dict[str, object]) -> Config:
    """As `load`, from the tables of a TOML file.

    Raises:
        ConfigurationError: as `load`.
    """
    config = None
    lines = [f"{name}: {_UNKNOWN}" for name in (*_unknown_tables(values), *_unknown_variables())]
    try:
        config = Config(**{name: value for name, value in values.items() if name in Config.model_fields})  # type: ignore[arg-type]
    except ValidationError as error:
        lines += [_complaint(entry["loc"], entry["type"], entry["msg"]) for entry in error.errors()]
    except SettingsError as error:
        lines.append(f"{error}: in the environment a list or a table must be JSON")
    # Raised here, as what these errors hold and would show in a traceback may be secrets.
    if config is None or lines:
        raise ConfigurationError("\n".join(lines))
    return config


def _unknown_tables(values: dict[str, object]) -> list[str]:
    """Names that pydantic-settings would in part take for parameters of its own (``_env_file``)."""
    return [name for name in values if name not in Config.model_fields]


def _unknown_variables() -> list[str]:
    """Environment variables that look like settings; pydantic-settings passes over a section that it does not know."""
    shaped = re.compile(rf"{ENVIRONMENT_PREFIX}(.+?)__.*", re.IGNORECASE)
    found = {name: match[1].lower() for name in sorted(os.environ) if (match := shaped.fullmatch(name))}
    return [name for name, section in found.items() if section not in Config.model_fields]


_UNKNOWN = "no such setting; config.example.toml shows them all"

_REMEDIES = {
    "database": 'set dsn of [database] (or GATEWAY_DATABASE__DSN) to your PostgreSQL, "postgresql://user:password@host/name"',
    "redis": 'set url of [redis] (or GATEWAY_REDIS__URL) to your Redis or Valkey, "redis://host:6379/0"',
    "identity": "give the key of your tokens as an [[identity.jwt]] table",
    "tenants": """list the tenants whose files it holds, or ["*"] for all""",
    "storage": "give at least one [[storage]] table with name, plugin and the plug-in's options",
}


def _complaint(path: tuple[int | str, ...], kind: str, message: str) -> str:
    name = ".".join(str(part) for part in path)
    if kind in ("missing", "too_short"):
        remedy = _REMEDIES.get(str(path[-1] if path[-1] == "tenants" else path[0]))
        return f"{name}: is missing" + (f"; {remedy}" if remedy else "")
    if kind == "extra_forbidden":
        return f"{name}: {_UNKNOWN}"
    if kind == "model_type":
        return f"{name}: must be a table"
    return f"{name}: {message.removeprefix('Value error, ')}"
