"""Options of the plug-in ``obstore``: what its ``[[storage]]`` table may say.

- ``url``: ``gs://bucket/prefix``, ``az://container/prefix`` (or ``abfss://container@account.dfs.core.windows.net/…``),
  ``s3://bucket/prefix``; the prefix may be left out. ``memory:///`` is an empty store of this process.
- ``options``: table of settings of the store, as obstore names them: ``account_name``, ``account_key`` and their like
  for Azure, ``service_account`` (a path) and its like for Google. What is not given comes from the environment
  variables that obstore names, then from the identity of the machine. Clients are redirected to signed URLs only if
  the key that signs is given here.
- ``client_options``: table of settings of obstore's HTTP client, such as ``proxy_url``, ``root_certificate``,
  ``allow_http``.
- ``timeout``: seconds that the store may take for one step: to answer, or to give the next 256 KiB (default 20).
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, MemoryStore, ObjectStore, S3Store, from_url

from gateway.errors import ConfigurationError
from storage_plugins.obstore.google_v4 import GOOGLE

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

DEFAULT_TIMEOUT = 20.0
_NAMES = ("url", "options", "client_options", "timeout")
_URL = re.compile(
    r"(?P<root>(?:gs|s3a?|az|azure|adl|abfss?)://[A-Za-z0-9._$-]+|abfss?://[A-Za-z0-9._$-]+@[A-Za-z0-9.-]+|memory://)"
    r"(?:/(?P<path>.*))?"
)
_SEGMENT = r"[^/\\\x00-\x1f\x7f\ud800-\udfff]+"
_ASKABLE = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_MEMORY = "memory://"
_SHORTEST_SECRET = 4
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_WHOLE_TRANSFER = datetime.timedelta(days=7)
"""obstore ends a request after so long, even while its bytes flow; stalls are seen by other deadlines."""
_CONNECT_SECONDS = 5.0
_RETRIES = 3
_FIRST_PAUSE, _LONGEST_PAUSE = datetime.timedelta(milliseconds=100), datetime.timedelta(seconds=2)


def has_dot_segments(name: str) -> bool:
    """Whether clients would resolve ``name`` to another one."""
    return not {".", ".."}.isdisjoint(name.split("/"))


def is_askable(name: str) -> bool:
    """Whether ``name`` is asked for as it is.

    obstore drops slashes at the ends, and refuses other things; Azure takes backslashes for slashes.
    """
    return _ASKABLE.fullmatch(name) is not None


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """What hrefs of objects start with."""

    text: str
    encoded: bool
    """Whether what follows is percent-encoded, as in any URL; else it is the object's name letter for letter."""


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """Options that were looked through."""

    root: str
    """URL of the bucket or container."""
    prefix: str
    """What names of objects start with: nothing, or something that ends with a slash."""
    config: Mapping[str, Any] = dataclasses.field(repr=False)
    client_options: Mapping[str, Any] = dataclasses.field(repr=False)
    timeout: float

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> Options:
        """Look through the options of a table.

        Raises:
            ConfigurationError: one is unknown, missing or wrong. The message names it, and shows no secret.
        """
        unknown = sorted(set(options) - set(_NAMES))
        if unknown:
            raise ConfigurationError(
                f"{', '.join(unknown)}: no such option of plug-in 'obstore' ({', '.join(_NAMES)}); what is for the "
                "store itself belongs to the table 'options'"
            )
        root, prefix = _place(options.get("url"))
        timeout = options.get("timeout", DEFAULT_TIMEOUT)
        if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0.1 <= timeout <= 3600:
            raise ConfigurationError("timeout: must be a number of seconds from 0.1 to 3600")
        return cls(root, prefix, _table(options, "options"), _table(options, "client_options"), timeout)

    def open_store(self) -> ObjectStore:
        """Make the store; nothing is asked of it yet.

        Raises:
            ConfigurationError: obstore refuses an option. What it says is shown without anything in quotes, and
                without the values of options: these may be secrets.
        """
        if self.root == _MEMORY:
            if self.config:
                raise ConfigurationError("options: a store in memory has none")
            return MemoryStore()
        config: Any = dict(self.config)
        retries: RetryConfig = {
            "max_retries": _RETRIES,
            "retry_timeout": _WHOLE_TRANSFER,
            "backoff": {"init_backoff": _FIRST_PAUSE, "max_backoff": _LONGEST_PAUSE, "base": 2},
        }
        try:
            store = from_url(self.root, config=config, client_options=self._client(), retry_config=retries)
        except (BaseError, ValueError, TypeError) as error:
            raise ConfigurationError(f"options, client_options: obstore says: {self._shown(error)}") from None
        settings, place = settings_of(store), self.root.partition("://")[2]
        container, _, host = place.partition("@")
        if settings.get("bucket", settings.get("container_name")) != container or (
            host and settings.get("account_name") != host.partition(".")[0]
        ):
            raise ConfigurationError("options: the bucket, container and account are those of url; leave them out")
        return store

    def starts(self, store: ObjectStore) -> tuple[Start, ...]:
        """What hrefs of all objects of the bucket or container start with: that of ``url``, and ``https`` forms."""
        plain = Start(f"{self.root}/", encoded=False)
        settings, urls = settings_of(store), []
        if isinstance(store, GCSStore):
            base, bucket = settings.get("base_url"), settings["bucket"]
            urls = [f"{(base or GOOGLE).rstrip('/')}/{bucket}/"]
            urls += [] if base else [GOOGLE.replace("://", f"://{bucket}.") + "/"]
        elif isinstance(store, AzureStore) and (endpoint := azure_endpoint(settings)) is not None:
            urls = [f"{endpoint}/{settings['container_name']}/"]
        return (plain, *(Start(url, encoded=True) for url in urls))

    def _client(self) -> ClientConfig:
        """Settings of the HTTP client: those given, and deadlines."""
        client: Any = {
            "connect_timeout": datetime.timedelta(seconds=min(_CONNECT_SECONDS, self.timeout)),
            # So that a connection that stalls can be replaced before the time of the whole step is over.
            "read_timeout": datetime.timedelta(seconds=self.timeout / 2),
            "timeout": _WHOLE_TRANSFER,
            **self.client_options,
        }
        if self.root.startswith("gs:"):
            # What Google stores packed is then given as it is stored, of the size that is told.
            client["default_headers"] = {"accept-encoding": "gzip", **client.get("default_headers", {})}
        given: ClientConfig = client
        return given

    def _shown(self, error: Exception) -> str:
        text = _QUOTED.sub('"…"', str(error).partition("\n")[0])
        for value in [*self.config.values(), *self.client_options.values()]:
            if isinstance(value, str) and len(value) >= _SHORTEST_SECRET:
                text = text.replace(value, "…")
        return text


def settings_of(store: ObjectStore) -> dict[str, str]:
    """The settings that a store was made with, by obstore's shortest names; those from the environment are not there.

    They hold secrets.
    """
    if not isinstance(store, AzureStore | GCSStore | S3Store):
        return {}
    return {name: str(value) for name, value in store.config.items()}


def azure_endpoint(settings: Mapping[str, str]) -> str | None:
    """URL of an Azure account, without a slash at its end; None if its settings do not tell."""
    if "use_emulator" in settings or "use_fabric_endpoint" in settings:
        return None
    endpoint, account = settings.get("endpoint"), settings.get("account_name")
    if endpoint is not None:
        return endpoint.rstrip("/")
    return f"https://{account}.blob.core.windows.net" if account is not None else None


def _place(url: object) -> tuple[str, str]:
    found = _URL.fullmatch(url) if isinstance(url, str) else None
    if found is None:
        raise ConfigurationError(
            "url: must be like 'gs://bucket/prefix', 'az://container/prefix', 's3://bucket/prefix' or 'memory:///'; "
            "files and web servers have plug-ins of their own"
        )
    if not found["path"]:
        return found["root"], ""
    prefix = found["path"].removesuffix("/")
    if has_dot_segments(prefix) or not is_askable(prefix):
        raise ConfigurationError("url: its prefix must have no segment that is empty, '.' or '..'")
    return found["root"], f"{prefix}/"


def _table(options: Mapping[str, object], name: str) -> Mapping[str, Any]:
    table = options.get(name, {})
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{name}: must be a table")
    for key, value in table.items():
        if key == "default_headers" and isinstance(value, Mapping):
            _table(table, key)
        elif not isinstance(value, str | bool):
            raise ConfigurationError(f"{name}.{key}: must be text, true or false")
    return table
