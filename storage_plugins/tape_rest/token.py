"""The bearer token that a site is shown: the same for ever, or what a file says at the moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.storage import CopyUnavailableError
from storage_plugins.tape_rest.options import is_token

_MOST_BYTES = 65536


class Token:
    """Gives the field Authorization, if there is a token at all."""

    def __init__(self, token: str | None, file: Path | None) -> None:
        self._token = token
        self._file = file
        self._seen: tuple[int, int, int] | None = None

    async def fields(self) -> dict[str, str]:
        """The header fields for a request.

        Raises:
            CopyUnavailableError: the file with the token cannot be read, or has none.
        """
        if self._file is not None:
            self._seen, self._token = await asyncio.to_thread(_read, self._file, self._seen, self._token)
        return {} if self._token is None else {"Authorization": f"Bearer {self._token}"}


def _read(file: Path, seen: tuple[int, int, int] | None, token: str | None) -> tuple[tuple[int, int, int], str]:
    """What tells the file from a later one, and the token in it: ``token``, if the file is still the one ``seen``."""
    try:
        found = file.stat()
        now = (found.st_mtime_ns, found.st_size, found.st_ino)
        if now == seen and token is not None:
            return now, token
        with file.open("rb") as opened:
            text = opened.read(_MOST_BYTES).decode("ascii", errors="replace").strip()
    except OSError as error:
        raise CopyUnavailableError(f"token_file {file}: {error.strerror}") from error
    if not is_token(text):
        raise CopyUnavailableError(f"token_file {file}: has no bearer token in it")
    return now, text
