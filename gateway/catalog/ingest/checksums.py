"""Checksums of a catalogue: multihashes (file extension of STAC) and algorithm with digits (REGARDS)."""

from __future__ import annotations

import re

from gateway.catalog.ingest.model import Checksum

DIGEST_BYTES = {"MD5": 16, "SHA-1": 20, "SHA-256": 32, "SHA-384": 48, "SHA-512": 64}
"""Length of each algorithm's digest."""

_MULTIHASH_CODES = {0xD5: "MD5", 0x11: "SHA-1", 0x12: "SHA-256", 0x20: "SHA-384", 0x13: "SHA-512"}
_HEX = re.compile("(?:[0-9a-fA-F]{2})+")


def from_multihash(text: str) -> Checksum | None:
    """Read a hexadecimal multihash: varint of the algorithm, varint of the length, digest, nothing more.

    None if ``text`` is not exactly that or the algorithm is not one of `DIGEST_BYTES`. The table of codes is
    https://github.com/multiformats/multicodec.
    """
    if _HEX.fullmatch(text) is None:
        return None
    # No length of a digest needs a second byte; 0xD5 is the only code that does.
    raw = bytes.fromhex(text[:6])
    code, rest = (0xD5, 2) if raw[:2] == b"\xd5\x01" else (raw[0] if raw[0] < 0x80 else -1, 1)
    algorithm = _MULTIHASH_CODES.get(code)
    if algorithm is None or len(raw) <= rest:
        return None
    digest = text[2 * (rest + 1) :]
    if raw[rest] != DIGEST_BYTES[algorithm] or len(digest) != 2 * DIGEST_BYTES[algorithm]:
        return None
    return Checksum(algorithm, digest)


def to_multihash(checksum: Checksum) -> str:
    """``checksum`` as a multihash in hexadecimal, in small letters: what `from_multihash` reads."""
    code = next(code for code, name in _MULTIHASH_CODES.items() if name == checksum.algorithm)
    varint = [code & 0x7F | 0x80, code >> 7] if code >= 0x80 else [code]
    return bytes([*varint, DIGEST_BYTES[checksum.algorithm]]).hex() + checksum.value.lower()


def from_digits(algorithm: str, digits: str) -> Checksum | None:
    """Read REGARDS' ``digestAlgorithm`` and ``checksum``; None if unknown or of another length.

    The algorithm is read without case and hyphen: ``SHA256`` is ``SHA-256``.
    """
    plain = {name.replace("-", ""): name for name in DIGEST_BYTES}
    known = plain.get(algorithm.upper().replace("-", ""))
    if known is None or _HEX.fullmatch(digits) is None or len(digits) != 2 * DIGEST_BYTES[known]:
        return None
    return Checksum(known, digits)
