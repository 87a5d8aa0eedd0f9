"""Checksums as HTTP fields: Repr-Digest (RFC 9530) and its elder, Digest (RFC 3230)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from multidict import MultiMapping

_REPR_DIGEST = {"SHA-256": "sha-256", "SHA-512": "sha-512"}
"""The algorithms RFC 9530 §5 calls active. The others give no protection against a forger and are not sent."""
_DIGEST = {"MD5": "MD5", "SHA-1": "SHA", "SHA-256": "SHA-256", "SHA-512": "SHA-512"}
"""Names of RFC 3230 and RFC 5843."""
_BYTES = {"MD5": 16, "SHA-1": 20, "SHA-256": 32, "SHA-512": 64}
_WANTED = re.compile(
    r"\s*([A-Za-z0-9-]{1,32})\s*(?:=\s*([0-9]{1,2})|;\s*[qQ]\s*=\s*([01](?:\.[0-9]{0,3})?))?\s*", re.ASCII
)
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


def wanted_digests(fields: Mapping[str, str], headers: MultiMapping[str]) -> dict[str, str]:
    """Those of ``fields`` (from `digest_fields`) that the request wants.

    A request that names no preference gets all. One that does (Want-Repr-Digest, RFC 9530 §4; Want-Digest, RFC 3230)
    gets those whose algorithm it names with a weight above zero; a preference that cannot be read is none.
    """
    if "Want-Repr-Digest" not in headers and "Want-Digest" not in headers:
        return dict(fields)
    wanted = {}
    for name, value in fields.items():
        weights = _weights(",".join(headers.getall(f"Want-{name}", ())))
        if not weights or weights.get(value.partition("=")[0].lower(), 0) > 0:
            wanted[name] = value
    return wanted


def _weights(preference: str) -> dict[str, float]:
    """Algorithm to weight, from ``sha-256=10`` (RFC 9530) as well as ``SHA-256;q=0.5`` (RFC 3230)."""
    weights = {}
    for element in preference.split(","):
        match = _WANTED.fullmatch(element)
        if match:
            weights[match[1].lower()] = float(match[2] or match[3] or 1)
    return weights
