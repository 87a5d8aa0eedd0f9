"""What is to be said of each route in the description of the API."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from gateway.api.openapi_administration import ADMINISTRATION
from gateway.api.openapi_basket import BASKET
from gateway.api.openapi_nearline import NEARLINE
from gateway.api.openapi_operation import CHANGED, FORM, GONE, SEEN, Operation
from gateway.api.openapi_orders import ORDERS
from gateway.api.openapi_stac import CATALOGUE
from gateway.api.openapi_transactions import TRANSACTIONS
from gateway.errors import Family
from gateway.metalink import Metalink4

_DOWNLOAD = Operation(
    "Download a file",
    scope="download",
    link=True,
    query=("Range", "If-Match", "If-None-Match", "Prefer", "isContentInline", "acceptLicense", "dryRun"),
    # That of the file, where the catalogue knows it.
    types=("application/octet-stream", "*/*"),
    statuses=(200, 202, 206, 304, 307),
    refusals=(404, 410, 412, 416, 423, 429, 502, 503),
    text="A redirect (307) leads to a URL of the storage that works for a short time. A file that is not online is "
    "restored first: 503 with `Retry-After`, or 202 with `Prefer: respond-async`; 410 if nobody restores it.",
)

_TEST = dataclasses.replace(
    _DOWNLOAD,
    summary="What a download would answer",
    query=("Prefer",),
    statuses=(200, 206, 304),
    refusals=(404, 410, 412, 416, 423, 502, 503),
    text="Spends nothing. With `Prefer: quota` it also tells what the download would be charged.",
)

_OF_ASSET = dataclasses.replace(
    _DOWNLOAD,
    tag="Download",
    refusals=(404, 409, *_DOWNLOAD.refusals[2:], 500),
    text=_DOWNLOAD.text.replace("410", "409"),
)
_TEST_OF_ASSET = dataclasses.replace(_TEST, tag="Download", refusals=(404, 409, *_TEST.refusals[2:], 500))
_DOCUMENT = Operation("This document", "public", types=("application/vnd.oai.openapi+json;version=3.1",), refusals=())
_PAGE = Operation("This document, to be read", "public", types=("text/html",), refusals=())

_OWN = Operation("What binds the caller", scope="quota", answer="RegardsLimits", refusals=SEEN)
_OF_USER = Operation("Limits of a user", "administrator", answer="RegardsLimits", refusals=CHANGED)
_DEFAULTS = Operation(
    "Limits of users who have none of their own", "administrator", answer="RegardsValues", refusals=SEEN
)
_SETTING = Operation("A setting", "administrator", answer="Setting", refusals=SEEN)
_HEALTH = Operation("Whether downloads can be served", "public", answer="Health")

OPERATIONS: Mapping[Family, Mapping[tuple[str, str], Operation]] = {
    Family.REGARDS: {
        ("GET", "/downloads/{aip_id}/files/{checksum}"): _DOWNLOAD,
        ("HEAD", "/downloads/{aip_id}/files/{checksum}"): _TEST,
        ("GET", "/quota"): _OWN,
        ("GET", "/quota/current"): dataclasses.replace(_OWN, summary="The same with usage", answer="RegardsUsage"),
        ("POST", "/quota/currents"): Operation(
            "Usage of several users", "administrator", body="Emails", answer="RegardsUsages", refusals=CHANGED
        ),
        ("GET", "/quota/max"): Operation("The default of maxQuota", "administrator", answer="Number", refusals=SEEN),
        ("GET", "/quota/defaults"): _DEFAULTS,
        ("PUT", "/quota/defaults"): dataclasses.replace(_DEFAULTS, body="RegardsValues", refusals=CHANGED),
        ("GET", "/quota/current/{user_email}"): dataclasses.replace(
            _OF_USER, summary="Usage of a user", answer="RegardsUsage"
        ),
        ("GET", "/quota/{user_email}"): _OF_USER,
        ("PUT", "/quota/{user_email}"): dataclasses.replace(_OF_USER, body="RegardsLimits"),
        ("GET", "/quotas"): Operation(
            "Limits of several users",
            scope="quota",
            query=("user_email",),
            answer="RegardsLimitsOfSeveral",
            refusals=CHANGED,
        ),
        ("GET", "/quota/rules"): Operation(
            "All rules of quota",
            "administrator",
            query=("subject", "name", "limit", "cursor", "tenant"),
            answer="Rules",
            refusals=CHANGED,
        ),
        ("PUT", "/quota/rules"): Operation(
            "Write a rule", "administrator", query=("tenant",), body="Rule", answer="Rule", refusals=CHANGED
        ),
        ("DELETE", "/quota/rules"): Operation(
            "Delete a rule",
            "administrator",
            query=("subject", "name", "shared", "metric", "period", "tenant"),
            statuses=GONE,
            refusals=CHANGED,
        ),
        ("GET", "/settings"): dataclasses.replace(
            _SETTING, summary="Settings of quota", query=("names",), answer="Settings"
        ),
        ("GET", "/settings/{name}"): _SETTING,
        ("PUT", "/settings/{name}"): dataclasses.replace(_SETTING, body="Setting", refusals=CHANGED),
        ("DELETE", "/settings/{name}"): dataclasses.replace(_SETTING, summary="Back to unlimited"),
        ("GET", "/cache"): Operation(
            "Size of the cache of restored copies, and what of it is used",
            "administrator",
            answer="Cache",
            text="Role EXPLOIT will do. Both are 0 without a cache.",
        ),
        ("GET", "/entities/{urn}/access"): Operation(
            "Whether the caller may download a product, or see a dataset",
            scope="download",
            answer="Truth",
            refusals=SEEN,
            text="Licences and quotas are not looked at.",
        ),
        ("POST", "/entities/access"): Operation(
            "Those of several products that the caller may download, and of datasets that he may see",
            scope="download",
            body="Urns",
            answer="Urns",
        ),
        ("GET", "/engines/legacy/dataobjects/search"): Operation(
            "Search products",
            scope="download",
            query=("q", "page", "size", "sort"),
            answer="RegardsProducts",
            refusals=(400, 422, 503),
            text="In a page are the files that the caller may download, whether or not their licence is accepted.",
        ),
        ("GET", "/engines/legacy/dataobjects/{urn}"): Operation(
            "A product and its files", scope="download", answer="RegardsProduct", refusals=SEEN
        ),
        ("GET", "/license"): Operation(
            "The licence of the tenant, and whether the caller has accepted it",
            scope="download",
            answer="RegardsLicence",
            refusals=SEEN,
        ),
        ("PUT", "/license"): Operation("Accept it", "user", scope="download", answer="RegardsLicence", refusals=SEEN),
        ("PUT", "/license/reset"): Operation(
            "Ask everyone again", "administrator", statuses=GONE, text="By a new version of the tenant's licence."
        ),
        **BASKET,
        **ORDERS,
        **NEARLINE,
    },
    Family.STAC: {
        **CATALOGUE,
        ("GET", "/collections/{collectionId}/items/{itemId}/download/{assetId}"): dataclasses.replace(
            _OF_ASSET, identifier="getDownload"
        ),
        ("HEAD", "/collections/{collectionId}/items/{itemId}/download/{assetId}"): _TEST_OF_ASSET,
        ("GET", "/collections/{collectionId}/items/{itemId}/assets/{assetId}"): dataclasses.replace(
            _OF_ASSET, summary="The same by another name"
        ),
        ("HEAD", "/collections/{collectionId}/items/{itemId}/assets/{assetId}"): _TEST_OF_ASSET,
        ("POST", "/download"): Operation(
            "Links to many files",
            scope="download",
            tag="Download",
            body="FilesIn",
            answer="Files",
            types=("application/json", Metalink4.media_type),
            refusals=(404, 410, 423, 502, 503),
            text="Users get signed links, anonymous callers the addresses as they are. Nothing is charged. What is "
            "refused is told file by file; only a Metalink (RFC 5854) is of all files, or refused.",
        ),
        ("GET", "/api"): _DOCUMENT,
        ("GET", "/api.html"): _PAGE,
        ("GET", "/collections/{collectionId}/license"): Operation(
            "The licence of a collection, and whether the caller has accepted it",
            scope="download",
            answer="CollectionLicence",
            refusals=SEEN,
        ),
        ("PUT", "/collections/{collectionId}/license"): Operation(
            "Accept it", "user", scope="download", answer="CollectionLicence", refusals=SEEN
        ),
        ("POST", "/collections/{collectionId}/license"): Operation(
            "Accept it by a form on a page",
            "user",
            scope="download",
            body="Accepted",
            body_type=FORM,
            statuses=(303,),
            refusals=SEEN,
        ),
        **TRANSACTIONS,
    },
    Family.PROBLEM: {
        ("GET", "/api"): _DOCUMENT,
        ("GET", "/api.html"): _PAGE,
        ("GET", "/me"): Operation(
            "Who one is", any_key=True, answer="Caller", text="Every API key tells, whatever its scopes are."
        ),
        ("GET", "/me/usage"): Operation(
            "Every limit of the caller, and what is used", scope="quota", answer="Usage", refusals=SEEN
        ),
        ("GET", "/me/keys"): Operation(
            "API keys of the caller, the newest first", "user", answer="Keys", text="Revoked ones come last."
        ),
        ("POST", "/me/keys"): Operation(
            "Make an API key",
            "user",
            body="OwnKeyIn",
            answer="NewKey",
            statuses=(201,),
            refusals=(404, 409, 503),
            text="With the caller's role and groups. `key` is told once, here.",
        ),
        ("DELETE", "/me/keys/{id}"): Operation("Revoke an API key", "user", statuses=GONE, refusals=SEEN),
        ("POST", "/links"): Operation(
            "Make a URL that downloads one file as the caller, without a credential beside it",
            "user",
            scope="download",
            body="LinkIn",
            answer="Link",
            statuses=(201,),
            refusals=(404, 423, 503),
        ),
        ("DELETE", "/links"): Operation(
            "Revoke all links that the caller made until now",
            "user",
            scope="download",
            query=("email",),
            statuses=GONE,
            refusals=(400, 404, 503),
            text="Or those of another user of the tenant (`email`), for PROJECT_ADMIN and INSTANCE_ADMIN.",
        ),
        ("DELETE", "/links/{id}"): Operation(
            "Revoke a link",
            "user",
            scope="download",
            statuses=GONE,
            refusals=SEEN,
            text="One of the caller; any of the tenant for PROJECT_ADMIN and INSTANCE_ADMIN.",
        ),
        ("GET", "/login"): Operation(
            "Go to the identity provider to log in",
            "public",
            query=("next",),
            statuses=(303,),
            refusals=(400, 404, 503),
            text="404 where browsers cannot log in.",
        ),
        ("GET", "/login/callback"): Operation(
            "Come back from the identity provider, with a session from now on",
            "public",
            query=("code", "state", "error"),
            statuses=(303,),
            refusals=(400, 401, 403, 404, 502, 503),
        ),
        ("POST", "/logout"): Operation(
            "End the session",
            "public",
            statuses=GONE,
            refusals=(401, 403, 404, 503),
            text="From a page of this gateway (`Origin`). Without a session there is nothing to do: 204, too.",
        ),
        ("GET", "/health"): _HEALTH,
        ("GET", "/health/ready"): _HEALTH,
        ("GET", "/health/live"): Operation("Whether the process runs", "public", answer="Live", refusals=()),
        **ADMINISTRATION,
    },
}
"""By family, then by method and path below the prefix of the family. A HEAD without words has those of its GET."""
