"""What the tables of settings are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SECRET_BYTES = 32
"""Fewest bytes of a `RandomSecret`."""
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A table of the TOML file; a name it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PluginTable(BaseModel):
    """A table whose settings beyond those of its class are options of a plug-in."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> dict[str, object]:
        """The options of the plug-in, by name."""
        return dict(self.model_extra or {})

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        """Show which options there are; their values may be secrets of the plug-in."""
        for name, value in super().__repr_args__():
            yield name, "…" if name in self.options else value


def _unknown_to_others(value: SecretStr) -> SecretStr:
    secret = value.get_secret_value()
    if "replace-me" in secret:
        raise ValueError("is the placeholder of the example, which everybody knows")
    length = len(secret.encode())
    if length < SECRET_BYTES:
        raise ValueError(
            f"has {length} bytes, needs at least {SECRET_BYTES} (openssl rand -base64 48 makes a good one)"
        )
    return value


RandomSecret = Annotated[SecretStr, AfterValidator(_unknown_to_others)]
"""Random text that keys are derived from."""


def url_with_scheme(*schemes: str) -> AfterValidator:
    """Check that a secret URL has one of ``schemes``; the complaint does not quote it."""

    def check(value: SecretStr) -> SecretStr:
        if scheme_of(value.get_secret_value()) not in schemes:
            raise ValueError(f"must be a URL that starts with {' or '.join(f'{s}://' for s in schemes)}")
        return value

    return AfterValidator(check)


def scheme_of(url: str) -> str:
    """The scheme of ``url``; nothing of a malformed one, as the library's complaint would quote its password."""
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""
