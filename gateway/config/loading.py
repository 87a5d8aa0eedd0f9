"""All settings together, read from a file and the environment."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from gateway.config.audit import Audit
from gateway.config.companion import Companion
from gateway.config.identity import Identity
from gateway.config.neighbours import Database, Redis
from gateway.config.notices import Mail, Webhook
from gateway.config.orders import Orders
from gateway.config.quotas import Quotas
from gateway.config.rights import PolicyTable, Rights
from gateway.config.serving import Api, Delivery, Server
from gateway.config.staging import Staging
from gateway.config.storage import StorageLocation
from gateway.errors import ConfigurationError

ENVIRONMENT_PREFIX = "GATEWAY_"


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
    audit: Audit = Audit()
    orders: Orders = Orders()
    staging: Staging = Staging()
    mail: Mail | None = None
    webhooks: list[Webhook] = []
    rights: Rights = Rights()
    policies: list[PolicyTable] = []
    companion: Companion | None = None
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

    @model_validator(mode="after")
    def _users_come_back(self) -> Self:
        if self.identity.login is not None and self.api.public_url is None:
            raise ValueError("'public_url' of [api] must be set for [identity.login]: users are sent back there")
        return self

    @model_validator(mode="after")
    def _mails_lead_here(self) -> Self:
        if self.mail is not None and self.api.public_url is None:
            raise ValueError("'public_url' of [api] must be set for [mail]: links in mails begin with it")
        return self

    @field_validator("webhooks")
    @classmethod
    def _webhooks_differ(cls, value: list[Webhook]) -> list[Webhook]:
        _check_names("webhook", [webhook.name for webhook in value])
        return value

    @field_validator("storage")
    @classmethod
    def _storages_differ(cls, value: list[StorageLocation]) -> list[StorageLocation]:
        _check_names("storage location", [location.name for location in value])
        return value

    @model_validator(mode="after")
    def _cache_is_a_storage(self) -> Self:
        cache = self.staging.cache
        if cache is not None:
            tables = {location.name: location for location in self.storage}
            if cache not in tables:
                raise ValueError(f"'cache' of [staging] is {cache!r}, but no [[storage]] has this name")
            if tables[cache].type != "ONLINE":
                raise ValueError("'cache' of [staging] must be a [[storage]] of type ONLINE")
        return self

    @field_validator("policies")
    @classmethod
    def _policies_differ(cls, value: list[PolicyTable]) -> list[PolicyTable]:
        _check_names("policy", [policy.name for policy in value])
        return value


def _check_names(kind: str, names: list[str]) -> None:
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"more than one {kind} is named {', '.join(sorted(twice))}; names must differ")


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
    "identity.links": "openssl rand -base64 48 makes a good one",
    "tenants": """list the tenants whose files it holds, or ["*"] for all""",
    "storage": "give at least one [[storage]] table with name, plugin and the plug-in's options",
}


def _complaint(path: tuple[int | str, ...], kind: str, message: str) -> str:
    name = ".".join(str(part) for part in path)
    if kind in ("missing", "too_short"):
        names = (str(path[-1]) if path[-1] == "tenants" else "", ".".join(map(str, path[:2])), str(path[0]))
        remedy = next((_REMEDIES[one] for one in names if one in _REMEDIES), None)
        return f"{name}: is missing" + (f"; {remedy}" if remedy else "")
    if kind == "extra_forbidden":
        return f"{name}: {_UNKNOWN}"
    if kind == "model_type":
        return f"{name}: must be a table"
    return f"{name}: {message.removeprefix('Value error, ')}"
