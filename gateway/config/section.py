"""What the tables of settings are made of."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A table of the TOML file; a name it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
