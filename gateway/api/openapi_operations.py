"""What is to be said of each route in the description of the API."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from gateway.errors import Family


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """Words on a method of a path."""

    summary: str
    access: Literal["public", "anyone", "download", "user", "administrator", "instance"] = "anyone"
    """Who may: everybody without a word; whoever shows a credential or names a tenant; or has a link; whoever shows a
    credential; an administrator of the tenant; one of the whole gateway."""
    query: tuple[str, ...] = ()
    """Names of parameters of the query, and of fields, as the components have them."""
    body: str | None = None
    """Schema of the body of the request."""
    answer: str | None = None
    """Schema of the answer."""
    types: tuple[str, ...] = ()
    """Media types of the answer, where it is not JSON alone."""
    statuses: tuple[int, ...] = (200,)
    """When all is well."""
    refusals: tuple[int, ...] = (503,)
    """Beside 401 and 403, which follow from ``access``."""
    text: str = ""
    """More words."""
    identifier: str = ""
    """The operationId, where a standard names it."""


_PAGE = ("limit", "cursor", "tenant")
_RECORDS = ("from", "to", "email", "limit", "cursor", "tenant")
_STREAMS = ("application/json", "text/csv", "application/x-ndjson")
_SEEN = (404, 503)
_CHANGED = (400, 404, 503)
_NEW = (200, 201)
_GONE = (204,)

_DOWNLOAD = Operation(
    "Download a file",
    "download",
    query=("Range", "If-Match", "If-None-Match", "isContentInline", "acceptLicense", "dryRun"),
    types=("application/octet-stream",),
    statuses=(200, 206, 304, 307),
    refusals=(403, 404, 410, 412, 416, 423, 429, 502, 503),
    text="A redirect (307) leads to a URL of the storage that works for a short time.",
)

_TEST = dataclasses.replace(
    _DOWNLOAD,
    summary="What a download would answer",
    query=("Prefer",),
    statuses=(200, 206, 304),
    refusals=(403, 404, 410, 412, 416, 423, 502, 503),
    text="Spends nothing. With `Prefer: quota` it also tells what the download would be charged.",
)

_OWN = Operation("What binds the caller", answer="RegardsLimits", refusals=_SEEN)
_OF_USER = Operation("Limits of a user", "administrator", answer="RegardsLimits", refusals=_CHANGED)
_DEFAULTS = Operation(
    "Limits of users who have none of their own", "administrator", answer="RegardsValues", refusals=_SEEN
)
_SETTING = Operation("A setting", "administrator", answer="Setting", refusals=_SEEN)
_HEALTH = Operation("Whether downloads can be served", "public", answer="Health")

OPERATIONS: Mapping[Family, Mapping[tuple[str, str], Operation]] = {
    Family.REGARDS: {
        ("GET", "/downloads/{aip_id}/files/{checksum}"): _DOWNLOAD,
        ("HEAD", "/downloads/{aip_id}/files/{checksum}"): _TEST,
        ("GET", "/quota"): _OWN,
        ("GET", "/quota/current"): dataclasses.replace(_OWN, summary="The same with usage", answer="RegardsUsage"),
        ("POST", "/quota/currents"): Operation(
            "Usage of several users", "administrator", body="Emails", answer="RegardsUsages", refusals=_CHANGED
        ),
        ("GET", "/quota/max"): Operation("The default of maxQuota", "administrator", answer="Number", refusals=_SEEN),
        ("GET", "/quota/defaults"): _DEFAULTS,
        ("PUT", "/quota/defaults"): dataclasses.replace(_DEFAULTS, body="RegardsValues", refusals=_CHANGED),
        ("GET", "/quota/current/{user_email}"): dataclasses.replace(
            _OF_USER, summary="Usage of a user", answer="RegardsUsage"
        ),
        ("GET", "/quota/{user_email}"): _OF_USER,
        ("PUT", "/quota/{user_email}"): dataclasses.replace(_OF_USER, body="RegardsLimits"),
        ("GET", "/quotas"): Operation(
            "Limits of several users",
            query=("user_email",),
            answer="RegardsLimitsOfSeveral",
            refusals=(400, 403, 404, 503),
        ),
        ("GET", "/quota/rules"): Operation(
            "All rules of quota", "administrator", query=("subject", "name"), answer="Rules", refusals=_CHANGED
        ),
        ("PUT", "/quota/rules"): Operation(
            "Write a rule", "administrator", body="Rule", answer="Rule", refusals=_CHANGED
        ),
        ("DELETE", "/quota/rules"): Operation(
            "Delete a rule",
            "administrator",
            query=("subject", "name", "shared", "metric", "period"),
            statuses=_GONE,
            refusals=_CHANGED,
        ),
        ("GET", "/entities/{urn}/access"): Operation(
            "Whether the caller may download a product, or see a dataset", answer="Truth", refusals=_SEEN
        ),
        ("POST", "/entities/access"): Operation(
            "Of several products those that the caller may download",
            body="Urns",
            answer="Urns",
            refusals=(400, 413, 503),
        ),
        ("GET", "/license"): Operation(
            "The licence of the tenant, and whether it is accepted", answer="RegardsLicence", refusals=_SEEN
        ),
        ("PUT", "/license"): Operation(
            "Accept the licence of the tenant", "user", answer="RegardsLicence", refusals=(403, 404, 503)
        ),
        ("PUT", "/license/reset"): Operation("Ask everyone again", "administrator", statuses=_GONE, refusals=_SEEN),
        ("GET", "/settings"): dataclasses.replace(
            _SETTING, summary="Settings of quota", query=("names",), answer="Settings"
        ),
        ("GET", "/settings/{name}"): _SETTING,
        ("PUT", "/settings/{name}"): dataclasses.replace(_SETTING, body="Setting", refusals=_CHANGED),
        ("DELETE", "/settings/{name}"): dataclasses.replace(_SETTING, summary="Back to unlimited"),
    },
    Family.STAC: {
        ("GET", "/collections/{collectionId}/items/{itemId}/download/{assetId}"): dataclasses.replace(
            _DOWNLOAD, identifier="getDownload"
        ),
        ("HEAD", "/collections/{collectionId}/items/{itemId}/download/{assetId}"): _TEST,
        ("GET", "/collections/{collectionId}/license"): Operation(
            "The licence of a collection, and whether it is accepted", answer="Accepted", refusals=(403, 404, 503)
        ),
        ("PUT", "/collections/{collectionId}/license"): Operation(
            "Accept the licence of a collection", "user", answer="Accepted", refusals=(403, 404, 503)
        ),
    },
    Family.PROBLEM: {
        ("GET", "/api"): Operation(
            "This document", "public", types=("application/vnd.oai.openapi+json;version=3.1",), refusals=()
        ),
        ("GET", "/me/usage"): Operation("Every limit of the caller, and what is used", answer="Usage", refusals=_SEEN),
        ("GET", "/me"): Operation("Who one is", answer="Me", refusals=(403, 503)),
        ("GET", "/login"): Operation(
            "Log a browser in at the identity provider",
            "public",
            query=("next",),
            statuses=(303,),
            refusals=(400, 404, 503),
        ),
        ("GET", "/login/callback"): Operation(
            "Where the identity provider sends users back to", "public", statuses=(303,), refusals=(400, 401, 404, 503)
        ),
        ("POST", "/logout"): Operation("End a session", "public", statuses=_GONE, refusals=(401, 403, 404, 503)),
        ("GET", "/me/keys"): Operation("One's own API keys", "user", answer="Keys", refusals=(403, 503)),
        ("POST", "/me/keys"): Operation(
            "Make an API key for oneself",
            "user",
            body="KeyIn",
            answer="NewKey",
            statuses=(201,),
            refusals=(400, 403, 404, 409, 503),
            text="Its text is told once, here.",
        ),
        ("DELETE", "/me/keys/{id}"): Operation(
            "Revoke one of one's own API keys", "user", statuses=_GONE, refusals=(403, 404, 503)
        ),
        ("GET", "/admin/keys"): Operation(
            "API keys of the tenant", "administrator", query=("email", "tenant"), answer="Keys", refusals=_CHANGED
        ),
        ("POST", "/admin/keys"): Operation(
            "Make an API key for a user",
            "administrator",
            query=("tenant",),
            body="KeyOfUserIn",
            answer="NewKey",
            statuses=(201,),
            refusals=(400, 404, 409, 503),
        ),
        ("DELETE", "/admin/keys/{id}"): Operation(
            "Revoke an API key of the tenant", "administrator", query=("tenant",), statuses=_GONE, refusals=_SEEN
        ),
        ("POST", "/links"): Operation(
            "Make a signed link to a file",
            "user",
            body="LinkIn",
            answer="Link",
            statuses=(201,),
            refusals=(400, 403, 404, 423, 503),
            text="Whoever has it downloads as its maker, without a credential beside it.",
        ),
        ("DELETE", "/links/{id}"): Operation("Revoke a link", "user", statuses=_GONE, refusals=(403, 404, 503)),
        ("GET", "/health"): _HEALTH,
        ("GET", "/health/ready"): _HEALTH,
        ("GET", "/health/live"): Operation("Whether the process runs", "public", answer="Live", refusals=()),
        ("GET", "/admin/tenants"): Operation(
            "Tenants", "instance", query=("limit", "cursor"), answer="Tenants", refusals=(400, 503)
        ),
        ("PUT", "/admin/tenants/{name}"): Operation(
            "Make a tenant", "instance", body="Empty", answer="Named", statuses=_NEW, refusals=(400, 503)
        ),
        ("DELETE", "/admin/tenants/{name}"): Operation(
            "Delete a tenant that is empty", "instance", statuses=_GONE, refusals=(404, 409, 503)
        ),
        ("GET", "/admin/groups"): Operation(
            "Access groups", "administrator", query=_PAGE, answer="Groups", refusals=_CHANGED
        ),
        ("GET", "/admin/groups/{group}"): Operation(
            "An access group", "administrator", query=("tenant",), answer="Group", refusals=_SEEN
        ),
        ("PUT", "/admin/groups/{group}"): Operation(
            "Make a group, or change it",
            "administrator",
            query=("tenant",),
            body="GroupIn",
            answer="Group",
            statuses=_NEW,
            refusals=_CHANGED,
            text="Its name stays: tokens and rules of quota carry it. Limits of a group are at `/quota/rules`.",
        ),
        ("DELETE", "/admin/groups/{group}"): Operation(
            "Delete a group with its memberships and rights",
            "administrator",
            query=("tenant",),
            statuses=_GONE,
            refusals=_SEEN,
        ),
        ("GET", "/admin/groups/{group}/members"): Operation(
            "Members that the database knows", "administrator", query=_PAGE, answer="Members", refusals=_CHANGED
        ),
        ("PUT", "/admin/groups/{group}/members"): Operation(
            "Have exactly these members",
            "administrator",
            query=("tenant",),
            body="MembersIn",
            answer="MembersChanged",
            refusals=(400, 404, 413, 503),
        ),
        ("PUT", "/admin/groups/{group}/members/{email}"): Operation(
            "Add a member", "administrator", query=("tenant",), statuses=_GONE, refusals=_CHANGED
        ),
        ("DELETE", "/admin/groups/{group}/members/{email}"): Operation(
            "Remove a member", "administrator", query=("tenant",), statuses=_GONE, refusals=_SEEN
        ),
        ("GET", "/admin/collections/{collectionId}/rights"): Operation(
            "Rights of groups to a collection", "administrator", query=_PAGE, answer="Rights", refusals=_CHANGED
        ),
        ("GET", "/admin/collections/{collectionId}/rights/{group}"): Operation(
            "The right of a group", "administrator", query=("tenant",), answer="Right", refusals=_SEEN
        ),
        ("PUT", "/admin/collections/{collectionId}/rights/{group}"): Operation(
            "Give a group a right, in place of the one it has",
            "administrator",
            query=("tenant",),
            body="RightIn",
            answer="Right",
            statuses=_NEW,
            refusals=_CHANGED,
        ),
        ("DELETE", "/admin/collections/{collectionId}/rights/{group}"): Operation(
            "Take a right away", "administrator", query=("tenant",), statuses=_GONE, refusals=_SEEN
        ),
        ("GET", "/admin/licences"): Operation(
            "Licences", "administrator", query=_PAGE, answer="Licences", refusals=_CHANGED
        ),
        ("GET", "/admin/licences/{licence}"): Operation(
            "A licence", "administrator", query=("tenant",), answer="Licence", refusals=_SEEN
        ),
        ("PUT", "/admin/licences/{licence}"): Operation(
            "Make a licence, or change it without asking anyone again",
            "administrator",
            query=("tenant",),
            body="LicenceIn",
            answer="Licence",
            statuses=_NEW,
            refusals=_CHANGED,
        ),
        ("DELETE", "/admin/licences/{licence}"): Operation(
            "Delete a licence that nothing uses and nobody accepted",
            "administrator",
            query=("tenant",),
            statuses=_GONE,
            refusals=(404, 409, 503),
        ),
        ("POST", "/admin/licences/{licence}/versions"): Operation(
            "Ask everyone again",
            "administrator",
            query=("tenant",),
            body="VersionIn",
            answer="Licence",
            statuses=(201,),
            refusals=_CHANGED,
        ),
        ("GET", "/admin/collections/{collectionId}/licence"): Operation(
            "The licence that a collection names", "administrator", query=("tenant",), answer="Chosen", refusals=_SEEN
        ),
        ("PUT", "/admin/collections/{collectionId}/licence"): Operation(
            "Have a collection name a licence, or none",
            "administrator",
            query=("tenant",),
            body="Chosen",
            answer="Chosen",
            refusals=_CHANGED,
        ),
        ("GET", "/admin/licence"): Operation(
            "The licence of collections that name none",
            "administrator",
            query=("tenant",),
            answer="Chosen",
            refusals=_SEEN,
        ),
        ("PUT", "/admin/licence"): Operation(
            "Choose it, or none",
            "administrator",
            query=("tenant",),
            body="Chosen",
            answer="Chosen",
            refusals=_CHANGED,
        ),
        ("GET", "/admin/roles"): Operation(
            "Roles beside REGARDS' own", "administrator", query=_PAGE, answer="Roles", refusals=_CHANGED
        ),
        ("GET", "/admin/roles/{role}"): Operation(
            "A role", "administrator", query=("tenant",), answer="Role", refusals=_SEEN
        ),
        ("PUT", "/admin/roles/{role}"): Operation(
            "Make a role, or give it another parent",
            "administrator",
            query=("tenant",),
            body="RoleIn",
            answer="Role",
            statuses=_NEW,
            refusals=_CHANGED,
        ),
        ("DELETE", "/admin/roles/{role}"): Operation(
            "Delete a role", "administrator", query=("tenant",), statuses=_GONE, refusals=_SEEN
        ),
        ("GET", "/admin/downloads"): Operation(
            "Downloads and refusals, the newest first",
            "administrator",
            query=(*_RECORDS, "product", "status", "verdict"),
            answer="Downloads",
            types=_STREAMS,
            refusals=_CHANGED,
            text="JSON comes by pages; CSV (separated by `;`) and NDJSON are streamed whole.",
        ),
        ("GET", "/admin/changes"): Operation(
            "What administrators changed, the newest first",
            "administrator",
            query=(*_RECORDS, "action", "object"),
            answer="Changes",
            types=_STREAMS,
            refusals=_CHANGED,
            text="As the record of downloads; `email` is the administrator's.",
        ),
    },
}
"""By family, then by method and path below the prefix of the family. A HEAD without words has those of its GET."""
