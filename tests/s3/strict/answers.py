"""What Amazon S3 answers, as far as the project asks it. No I/O.

Sources: Amazon S3 API Reference (GetObject, HeadObject, RestoreObject, GetBucketCors, ListObjectsV2); RFC 9110.
"""

from __future__ import annotations

import datetime
import email.utils
import re
from urllib.parse import unquote
from xml.sax.saxutils import escape

from tests.s3.account import DOMAIN, Account
from tests.s3.strict import cors, sigv4
from tests.s3.strict.messages import Fields, Reply, Request, S3Error, xml
from tests.s3.strict.store import Store, StoredObject

OVERRIDES = ("content-type", "content-language", "expires", "cache-control", "content-disposition", "content-encoding")
"""Fields that a signed ``response-…`` parameter sets."""
SUBRESOURCES = frozenset(
    [
        "acl",
        "attributes",
        "legal-hold",
        "lifecycle",
        "location",
        "partNumber",
        "policy",
        "retention",
        "select",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "website",
    ]
)
"""What S3 knows and this server does not: never taken for a request without it."""


def place(request: Request) -> tuple[str, str]:
    """The bucket and the key that a request is about; the bucket may be in the host.

    Raises:
        UnicodeDecodeError: the key is not UTF-8.
    """
    path = unquote(request.path, errors="strict").removeprefix("/")
    host = (request.field("Host") or "").partition(":")[0]
    if host.endswith(f".{DOMAIN}"):
        return host.removesuffix(f".{DOMAIN}"), path
    bucket, _, key = path.partition("/")
    return bucket, key


def answer(request: Request, store: Store, account: Account, now: datetime.datetime) -> Reply:
    """The answer to a request whose ``bucket`` and ``key`` are set."""
    rules = store.buckets[request.bucket].cors if request.bucket in store.buckets else ()
    try:
        if request.method == "OPTIONS":
            return cors.preflight(request, rules)
        sigv4.verify(request, account, now)
        reply = _answer_signed(request, store)
    except S3Error as error:
        reply = error.reply()
    added = cors.fields_for(request, rules)
    return Reply(reply.status, reply.fields + added, reply.content, reply.start, reply.stop)


def _answer_signed(request: Request, store: Store) -> Reply:
    names = {unquote(name) for name, _ in request.query}
    if unknown := names & SUBRESOURCES:
        raise _not_implemented(f"?{min(unknown)}")
    match request.method, request.key:
        case ("GET", "") if "cors" in names:
            return cors.document(store.bucket(request.bucket).cors)
        case ("GET", "") if request.bucket:
            return _listing(request, store)
        case ("HEAD", "") if request.bucket:
            store.bucket(request.bucket)
            return Reply(200)
        case ("GET" | "HEAD", key) if key:
            return _object(request, store)
        case ("POST", key) if key and "restore" in names:
            return _restore(request, store)
    raise _not_implemented(request.method)


def _not_implemented(what: str) -> S3Error:
    return S3Error(501, "NotImplemented", f"{what}: this is not implemented here")


def _object(request: Request, store: Store) -> Reply:
    stored = store.find(request.bucket, request.key)
    state = store.state(stored)
    if request.method == "GET" and state in {"archived", "restoring"}:
        message = "The operation is not valid for the object's storage class"
        raise S3Error(403, "InvalidObjectState", message, StorageClass=stored.storage_class)
    fields = _fields(stored, state)
    if (refusal := _precondition(request, stored)) == 412:
        raise S3Error(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
    if refusal == 304:
        return Reply(304, fields)
    overrides = {unquote(name).lower(): unquote(value) for name, value in request.query}
    whole = Reply(200, fields, stored.content, 0, stored.content.size)
    for name in OVERRIDES:
        if (value := overrides.get(f"response-{name}")) is not None:
            if not re.fullmatch(r"[\t\x20-\x7E\xA0-\xFF]*", value):
                message = "Header value cannot be represented using ISO-8859-1."
                raise S3Error(400, "InvalidArgument", message, ArgumentName=f"response-{name}", ArgumentValue=value)
            whole = whole.with_fields(**{name.title().replace("-", "_"): value})
    return _ranged(request, stored, whole)


def _fields(stored: StoredObject, state: str) -> Fields:
    fields = [
        ("Last-Modified", email.utils.format_datetime(stored.modified, usegmt=True)),
        ("ETag", stored.etag),
        ("Accept-Ranges", "bytes"),
        ("Content-Type", stored.content_type),
        *stored.headers.items(),
    ]
    if stored.storage_class != "STANDARD":
        fields.append(("x-amz-storage-class", stored.storage_class))
    if stored.archive_status is not None:
        fields.append(("x-amz-archive-status", stored.archive_status))
    if state == "restoring":
        fields.append(("x-amz-restore", 'ongoing-request="true"'))
    elif state == "restored":
        assert stored.restoration is not None
        assert stored.restoration.expires is not None
        expires = email.utils.format_datetime(stored.restoration.expires, usegmt=True)
        fields.append(("x-amz-restore", f'ongoing-request="false", expiry-date="{expires}"'))
    return tuple(fields)


def _precondition(request: Request, stored: StoredObject) -> int | None:
    """The status that RFC 9110 section 13.2.2 gives, or None to go on."""
    if (if_match := request.field("If-Match")) is not None:
        if not _names(if_match, stored.etag):
            return 412
    elif (since := _date(request.field("If-Unmodified-Since"))) and stored.modified > since:
        return 412
    if (if_none_match := request.field("If-None-Match")) is not None:
        return 304 if _names(if_none_match, stored.etag) else None
    if (since := _date(request.field("If-Modified-Since"))) and stored.modified <= since:
        return 304
    return None


def _names(listed: str, etag: str) -> bool:
    tags = [tag.strip() for tag in listed.split(",")]
    return "*" in tags or etag in tags or etag.strip('"') in tags  # S3 takes a tag without quotes, too.


def _date(text: str | None) -> datetime.datetime | None:
    try:
        return email.utils.parsedate_to_datetime(text) if text else None
    except ValueError:
        return None


def _ranged(request: Request, stored: StoredObject, whole: Reply) -> Reply:
    """The part that is asked for. What is no range, and more than one, is ignored."""
    size = stored.content.size
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", (request.field("Range") or "").strip())
    if asked is None or asked[0] == "bytes=-" or not _if_range_holds(request, stored):
        return whole
    first, last = asked[1], asked[2]
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < int(first):
            return whole
    else:
        start, stop = max(0, size - int(last)), size
    if start >= stop:
        raise S3Error(
            416, "InvalidRange", "The requested range is not satisfiable",
            RangeRequested=asked[0], ActualObjectSize=str(size),
        )  # fmt: skip
    fields = (*whole.fields, ("Content-Range", f"bytes {start}-{stop - 1}/{size}"))
    return Reply(206, fields, whole.content, start, stop)


def _if_range_holds(request: Request, stored: StoredObject) -> bool:
    condition = request.field("If-Range")
    return condition is None or condition == stored.etag or _date(condition) == stored.modified


def _restore(request: Request, store: Store) -> Reply:
    days, tier = (re.search(pattern, request.body) for pattern in (rb"<Days>([0-9]+)</Days>", rb"<Tier>(\w+)</Tier>"))
    wanted = "Standard" if tier is None else tier[1].decode()
    if b"<RestoreRequest" not in request.body or wanted not in ("Standard", "Bulk", "Expedited"):
        raise S3Error(400, "MalformedXML", "The XML you provided was not well-formed")
    if days is not None and int(days[1]) < 1:
        raise S3Error(400, "InvalidArgument", "Days must be at least 1")
    return Reply(store.restore(store.find(request.bucket, request.key), None if days is None else int(days[1]), wanted))


def _listing(request: Request, store: Store) -> Reply:
    bucket = store.bucket(request.bucket)
    asked = {unquote(name): unquote(value) for name, value in request.query}
    if asked.get("list-type") != "2":
        raise _not_implemented("the first version of listings")
    after = asked.get("continuation-token") or asked.get("start-after") or ""
    keys = sorted(key for key in bucket.objects if key.startswith(asked.get("prefix", "")) and key > after)
    most = int(asked.get("max-keys", "1000"))
    inner = f"<Name>{request.bucket}</Name><KeyCount>{len(keys[:most])}</KeyCount><MaxKeys>{most}</MaxKeys>"
    inner += f"<IsTruncated>{'true' if len(keys) > most else 'false'}</IsTruncated>"
    if len(keys) > most:
        inner += f"<NextContinuationToken>{escape(keys[most - 1])}</NextContinuationToken>"
    for key in keys[:most]:
        stored = bucket.objects[key]
        inner += (
            f"<Contents><Key>{escape(key)}</Key><LastModified>{stored.modified:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
            f"<ETag>{escape(stored.etag)}</ETag><Size>{stored.content.size}</Size>"
            f"<StorageClass>{stored.storage_class}</StorageClass></Contents>"
        )
    return xml(200, "ListBucketResult", inner)
