"""Is a request signed as AWS Signature Version 4 says? Judged by the bytes that were received, none normalised.

Amazon S3 decodes a path and encodes it again before it verifies. Here it must have come in its canonical form, so that
an encoding that only some servers forgive is found.

Source: Amazon S3 API Reference, "Authenticating Requests (AWS Signature Version 4)".
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import hmac
import re
from collections.abc import Callable
from urllib.parse import unquote

from tests.s3.account import Account
from tests.s3.strict.messages import Request, S3Error

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
CLOCK_SKEW = datetime.timedelta(minutes=15)
LONGEST_VALIDITY = 7 * 24 * 3600
"""Seconds."""
QUERY_PARAMETERS = (
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Signature",
    "X-Amz-Date",
    "X-Amz-SignedHeaders",
    "X-Amz-Expires",
)
TIME_FORMAT = "%Y%m%dT%H%M%SZ"
Refuse = Callable[[str], S3Error]
"""Makes the error for a signature that cannot be read."""
ONLY_ONE_MECHANISM = (
    "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or "
    "the Authorization header should be specified"
)


def verify(request: Request, account: Account, now: datetime.datetime) -> None:
    """Return if the request is signed with the account's key.

    Raises:
        S3Error: it is not, or not any more.
    """
    names = {name for name, _ in request.query}
    authorization = request.field("Authorization")
    in_query = not names.isdisjoint({"X-Amz-Algorithm", "X-Amz-Signature", "Signature"})
    if authorization is not None and in_query:
        raise S3Error(
            400, "InvalidArgument", ONLY_ONE_MECHANISM, ArgumentName="Authorization", ArgumentValue=authorization
        )
    if in_query:
        _verify_query(request, account, now)
    elif authorization is not None:
        _verify_header(request, account, now, authorization)
    else:
        raise S3Error(403, "AccessDenied", "Access Denied")


@dataclasses.dataclass(frozen=True, slots=True)
class _Signature:
    """What a request says of its signature."""

    credential: str
    time: str
    signed_headers: str
    payload: str
    signature: str
    token: str | None


def _verify_query(request: Request, account: Account, now: datetime.datetime) -> None:
    def refuse(message: str) -> S3Error:
        return S3Error(400, "AuthorizationQueryParametersError", message)

    parameters: dict[str, str] = {}
    for name, value in request.query:
        if name in parameters and name.startswith("X-Amz-"):
            raise refuse(f"{name} is given twice")
        parameters[name] = unquote(value)
    if not parameters.keys() >= set(QUERY_PARAMETERS):
        raise refuse(f"Query-string authentication version 4 requires the {', '.join(QUERY_PARAMETERS)} parameters.")
    if parameters["X-Amz-Algorithm"] != ALGORITHM:
        raise refuse(f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    if not re.fullmatch(r"[0-9]+", parameters["X-Amz-Expires"]):
        raise refuse("X-Amz-Expires should be a number, and not negative")
    expires = int(parameters["X-Amz-Expires"])
    if expires > LONGEST_VALIDITY:
        raise refuse("X-Amz-Expires must be less than a week (in seconds)")
    signature = _Signature(
        parameters["X-Amz-Credential"],
        parameters["X-Amz-Date"],
        parameters["X-Amz-SignedHeaders"],
        UNSIGNED,
        parameters["X-Amz-Signature"],
        parameters.get("X-Amz-Security-Token"),
    )
    signed_at = _time(signature, refuse)
    end = signed_at + datetime.timedelta(seconds=expires)
    if now > end:
        raise S3Error(
            403, "AccessDenied", "Request has expired",
            **{"X-Amz-Expires": str(expires), "Expires": end.isoformat(), "ServerTime": now.isoformat()},
        )  # fmt: skip
    if signed_at > now + CLOCK_SKEW:
        raise S3Error(403, "AccessDenied", "Request is not valid yet")
    _compare(request, account, signature, refuse)


def _verify_header(request: Request, account: Account, now: datetime.datetime, authorization: str) -> None:
    def refuse(message: str) -> S3Error:
        return S3Error(400, "AuthorizationHeaderMalformed", f"The authorization header is malformed; {message}")

    algorithm, _, rest = authorization.partition(" ")
    if algorithm != ALGORITHM:
        raise S3Error(
            400, "InvalidArgument", "Unsupported Authorization Type",
            ArgumentName="Authorization", ArgumentValue=authorization,
        )  # fmt: skip
    parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    if parts.keys() != {"Credential", "SignedHeaders", "Signature"}:
        raise refuse("it must have Credential, SignedHeaders and Signature")
    payload = request.field("x-amz-content-sha256")
    if payload is None:
        raise S3Error(400, "InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    if payload not in {UNSIGNED, hashlib.sha256(request.body).hexdigest()}:
        raise S3Error(400, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match.")
    signature = _Signature(
        parts["Credential"],
        request.field("x-amz-date") or "",
        parts["SignedHeaders"],
        payload,
        parts["Signature"],
        request.field("x-amz-security-token"),
    )
    if abs(now - _time(signature, refuse)) > CLOCK_SKEW:
        message = "The difference between the request time and the current time is too large."
        raise S3Error(403, "RequestTimeTooSkewed", message, ServerTime=now.isoformat())
    _compare(request, account, signature, refuse)


def _time(signature: _Signature, refuse: Refuse) -> datetime.datetime:
    try:
        return datetime.datetime.strptime(signature.time, TIME_FORMAT).replace(tzinfo=datetime.UTC)
    except ValueError as error:
        raise refuse("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"") from error


def _compare(request: Request, account: Account, signature: _Signature, refuse: Refuse) -> None:
    """Compute the signature anew.

    Raises:
        S3Error: it is another.
    """
    access_key_id, *scope = signature.credential.rsplit("/", 4)
    if len(scope) != 4 or scope[2:] != ["s3", "aws4_request"]:
        raise refuse('the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/s3/aws4_request".')
    if scope[0] != signature.time[:8]:
        raise refuse(f'Invalid credential date "{scope[0]}". This date is not the same as X-Amz-Date.')
    if scope[1] != account.region:
        raise refuse(f"the region '{scope[1]}' is wrong; expecting '{account.region}'")
    if access_key_id != account.access_key_id:
        message = "The AWS Access Key Id you provided does not exist in our records."
        raise S3Error(403, "InvalidAccessKeyId", message, AWSAccessKeyId=access_key_id)
    if signature.token != account.session_token:
        raise S3Error(400, "InvalidToken", "The provided token is malformed or otherwise invalid.")
    signed = signature.signed_headers.split(";")
    if "host" not in signed or signed != sorted(signed):
        raise refuse("SignedHeaders must have host, and be sorted")
    loose = sorted({name.lower() for name, _ in request.fields if name.lower().startswith("x-amz-")} - set(signed))
    if loose:
        message = "There were headers present in the request which were not signed"
        raise S3Error(403, "AccessDenied", message, HeadersNotSigned=", ".join(loose))
    canonical = _canonical_request(request, signed, signature.payload)
    string_to_sign = "\n".join(
        (ALGORITHM, signature.time, "/".join(scope), hashlib.sha256(canonical.encode()).hexdigest())
    )
    key = f"AWS4{account.secret_access_key}".encode()
    for step in (*scope, string_to_sign):
        key = hmac.digest(key, step.encode(), "sha256")
    if not hmac.compare_digest(key.hex().encode(), signature.signature.encode()):
        message = (
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method."
        )
        raise S3Error(
            403, "SignatureDoesNotMatch", message,
            AWSAccessKeyId=access_key_id, StringToSign=string_to_sign, CanonicalRequest=canonical,
        )  # fmt: skip


def _canonical_request(request: Request, signed: list[str], payload: str) -> str:
    pairs = sorted((name, value) for name, value in request.query if name != "X-Amz-Signature")
    return "\n".join(
        (
            request.method,
            request.path,
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{' '.join((request.field(name) or '').split())}" for name in signed),
            "",
            ";".join(signed),
            payload,
        )
    )
