"""Checksums as HTTP fields: Repr-Digest (RFC 9530) and its elder, Digest (RFC 3230)."""

from __future__ import annotations

import base64
import re

_REPR_DIGEST = {"SHA-256": "sha-256", "SHA-512": "sha-512"}
"""The algorithms RFC 9530 §5 calls active. The others give no protection against a forger and are not sent."""
_DIGEST = {"MD5": "MD5", "SHA-1": "SHA", "SHA-256": "SHA-256", "SHA-512": "SHA-512"}
"""Names of RFC 3230 and RFC 5843."""
_BYTES = {"MD5": 16, "SHA-1": 20, "SHA-256": 32, "SHA-512": 64}
_HEX = re.compile("[0-9A-Fa-f]+")


def digest_fields(algorithm: str | None, checksum: str | None) -> dict[str, str]:
    """The fields that tell the checksum of a whole representation: the same on 200, 206 and HEAD.

    Digest is sent beside Repr-Digest because download clients (aria2) verify only that one. It alone carries MD5 and
    SHA-1, which find damage though they withstand no forger.

    Args:
        algorithm: as in the catalogue: ``MD5``, ``SHA-1``, ``SHA-256``, ``SHA-384``, ``SHA-512``.
        checksum: hexadecimal, in either case.

    Returns:
        Field name to value. Empty without a checksum, where no field can carry it (SHA-384), or where it is not one of
        its algorithm: no claim is better than a wrong one.
    """
    if algorithm not in _BYTES or checksum is None or len(checksum) != 2 * _BYTES[algorithm]:
        return {}
    if not _HEX.fullmatch(checksum):
        return {}
    value = base64.b64encode(bytes.fromhex(checksum)).decode("ascii")
    fields = {"Digest": f"{_DIGEST[algorithm]}={value}"}
    if algorithm in _REPR_DIGEST:
        fields["Repr-Digest"] = f"{_REPR_DIGEST[algorithm]}=:{value}:"
    return fields
