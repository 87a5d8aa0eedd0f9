"""Options of the plug-in ``s3``: what its ``[[storage]]`` table may say."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from gateway.errors import ConfigurationError
from storage_plugins.s3.buckets import BucketMap, Place
from storage_plugins.s3.endpoint import Endpoint
from storage_plugins.s3.sigv4 import Credentials

T = TypeVar("T")

_NAMES = (
    "endpoint",
    "public_endpoint",
    "region",
    "addressing",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "profile",
    "buckets",
    "ca_file",
    "restore_tier",
    "restore_hours",
    "scratch",
)
_ADDRESSING = {"path": False, "virtual": True}
_TIERS = ("Standard", "Bulk", "Expedited")
_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
# What Amazon and others give out; a line break or a space at the end is a mistake in copying.
_VISIBLE = re.compile(r"[!-~]+")


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """Options that were looked through."""

    endpoint: Endpoint
    """What the gateway itself talks to."""
    public_endpoint: Endpoint
    """The same as clients can reach it: signed URLs lead there."""
    region: str
    buckets: BucketMap
    credentials: Credentials | None
    """None to take those of the AWS chain: environment, files, container, instance."""
    profile: str | None
    """Of the AWS files."""
    ca_file: Path | None
    """Certificates in PEM to trust instead of the system's."""
    restore_tier: str
    """How fast archived objects are to be restored, and at which price."""
    restore_hours: float | None = None
    """That a restore takes here; None for what Amazon publishes of the tier and the storage class."""
    scratch: Path | None = None
    """Where the cache of restored copies writes files before they are put."""

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> Options:
        """Look through the options of a table.

        Raises:
            ConfigurationError: one is unknown, missing or wrong. The message names it, and shows no secret.
        """
        unknown = sorted(set(options) - set(_NAMES))
        if unknown:
            raise ConfigurationError(f"{', '.join(unknown)}: no such option of plug-in 's3' ({', '.join(_NAMES)})")
        region = _text(options, "region")
        if region is None or not _REGION.fullmatch(region):
            raise ConfigurationError("region: must be the name of the region that signatures are made for: 'us-east-1'")
        virtual = _choice(options, "addressing", _ADDRESSING, None)
        endpoint = _endpoint(options, "endpoint", virtual=virtual)
        if endpoint is None:
            domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
            endpoint = Endpoint.parse(f"https://s3.{region}.{domain}", virtual=virtual)
        credentials, profile, ca_file = _credentials(options), _text(options, "profile"), _text(options, "ca_file")
        if credentials is not None and profile is not None:
            raise ConfigurationError("profile: is of no use with access_key_id; set one of them")
        return cls(
            endpoint=endpoint,
            public_endpoint=_endpoint(options, "public_endpoint", virtual=virtual) or endpoint,
            region=region,
            buckets=_buckets(options.get("buckets")),
            credentials=credentials,
            profile=profile,
            ca_file=None if ca_file is None else Path(ca_file),
            scratch=_folder(options, "scratch"),
            restore_tier=_choice(options, "restore_tier", {tier: tier for tier in _TIERS}, "Standard"),
            restore_hours=_hours(options.get("restore_hours")),
        )


def _text(options: Mapping[str, object], name: str) -> str | None:
    value = options.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigurationError(f"{name}: must be text, and not empty")
    return value


def _hours(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 8784:
        raise ConfigurationError("restore_hours: must be a number of hours above 0")
    return float(value)


def _folder(options: Mapping[str, object], name: str) -> Path | None:
    value = _text(options, name)
    if value is not None and not value.startswith("/"):
        raise ConfigurationError(f"{name}: must be the absolute path of a folder for new files")
    return None if value is None else Path(value)


def _choice(options: Mapping[str, object], name: str, choices: Mapping[str, T], default: T) -> T:
    value = _text(options, name)
    if value is None:
        return default
    if value not in choices:
        raise ConfigurationError(f"{name}: must be one of {', '.join(map(repr, choices))}")
    return choices[value]


def _endpoint(options: Mapping[str, object], name: str, *, virtual: bool | None) -> Endpoint | None:
    url = _text(options, name)
    if url is None:
        return None
    try:
        return Endpoint.parse(url, virtual=virtual)
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def _credentials(options: Mapping[str, object]) -> Credentials | None:
    key_id, secret, token = (_text(options, name) for name in ("access_key_id", "secret_access_key", "session_token"))
    if key_id is None and secret is None and token is None:
        return None
    if key_id is None or secret is None:
        raise ConfigurationError("access_key_id, secret_access_key: go together; session_token is no use without them")
    for name, value in (("access_key_id", key_id), ("secret_access_key", secret), ("session_token", token)):
        if value is not None and not _VISIBLE.fullmatch(value):
            raise ConfigurationError(f"{name}: must be of visible ASCII characters, without a space or a line break")
    return Credentials(key_id, secret, token)


def _buckets(value: object) -> BucketMap:
    problem = "buckets: must be a list like ['bucket', 'bucket/prefix'], or a table like { 'bucket/prefix' = 'other' }"
    if isinstance(value, list):
        pairs = [(name, name) for name in value]
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        raise ConfigurationError(problem)
    places: dict[Place, Place] = {}
    for named, held in pairs:
        if not isinstance(named, str) or not isinstance(held, str):
            raise ConfigurationError(problem)
        try:
            place, target = Place.parse(named), Place.parse(held)
        except ValueError as error:
            raise ConfigurationError(f"buckets: {error}") from None
        if place in places:
            raise ConfigurationError(f"buckets: {named!r} is there twice")
        places[place] = target
    if not places:
        raise ConfigurationError(problem)
    return BucketMap(places)
