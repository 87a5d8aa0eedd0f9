"""What is to be said of the routes below ``/admin/``."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.api.openapi_operation import CHANGED, GONE, NEW, SEEN, Operation

_PAGE = ("limit", "cursor", "tenant")
_RECORDS = ("from", "to", "email", "limit", "cursor", "tenant")
_STREAMS = ("application/json", "text/csv", "application/x-ndjson")

ADMINISTRATION: Mapping[tuple[str, str], Operation] = {
    ("GET", "/admin/tenants"): Operation(
        "Tenants", "instance", query=("limit", "cursor"), answer="Tenants", refusals=(400, 503)
    ),
    ("PUT", "/admin/tenants/{name}"): Operation(
        "Make a tenant", "instance", body="Empty", answer="Named", statuses=NEW, refusals=(400, 503)
    ),
    ("DELETE", "/admin/tenants/{name}"): Operation(
        "Delete a tenant that is empty", "instance", statuses=GONE, refusals=(404, 409, 503)
    ),
    ("GET", "/admin/groups"): Operation(
        "Access groups", "administrator", query=_PAGE, answer="Groups", refusals=CHANGED
    ),
    ("GET", "/admin/groups/{group}"): Operation(
        "An access group", "administrator", query=("tenant",), answer="Group", refusals=SEEN
    ),
    ("PUT", "/admin/groups/{group}"): Operation(
        "Make a group, or change it",
        "administrator",
        query=("tenant",),
        body="GroupIn",
        answer="Group",
        statuses=NEW,
        refusals=CHANGED,
        text="Its name stays: tokens and rules of quota carry it. Limits of a group are at `/quota/rules`.",
    ),
    ("DELETE", "/admin/groups/{group}"): Operation(
        "Delete a group with its memberships and rights",
        "administrator",
        query=("tenant",),
        statuses=GONE,
        refusals=SEEN,
    ),
    ("GET", "/admin/groups/{group}/members"): Operation(
        "Members that the database knows", "administrator", query=_PAGE, answer="Members", refusals=CHANGED
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
        "Add a member", "administrator", query=("tenant",), statuses=GONE, refusals=CHANGED
    ),
    ("DELETE", "/admin/groups/{group}/members/{email}"): Operation(
        "Remove a member", "administrator", query=("tenant",), statuses=GONE, refusals=SEEN
    ),
    ("GET", "/admin/collections/{collectionId}/rights"): Operation(
        "Rights of groups to a collection", "administrator", query=_PAGE, answer="Rights", refusals=CHANGED
    ),
    ("GET", "/admin/collections/{collectionId}/rights/{group}"): Operation(
        "The right of a group", "administrator", query=("tenant",), answer="Right", refusals=SEEN
    ),
    ("PUT", "/admin/collections/{collectionId}/rights/{group}"): Operation(
        "Give a group a right, in place of the one it has",
        "administrator",
        query=("tenant",),
        body="RightIn",
        answer="Right",
        statuses=NEW,
        refusals=CHANGED,
    ),
    ("DELETE", "/admin/collections/{collectionId}/rights/{group}"): Operation(
        "Take a right away", "administrator", query=("tenant",), statuses=GONE, refusals=SEEN
    ),
    ("GET", "/admin/licences"): Operation(
        "Licences", "administrator", query=_PAGE, answer="Licences", refusals=CHANGED
    ),
    ("GET", "/admin/licences/{licence}"): Operation(
        "A licence", "administrator", query=("tenant",), answer="Licence", refusals=SEEN
    ),
    ("PUT", "/admin/licences/{licence}"): Operation(
        "Make a licence, or change it without asking anyone again",
        "administrator",
        query=("tenant",),
        body="LicenceIn",
        answer="Licence",
        statuses=NEW,
        refusals=CHANGED,
    ),
    ("DELETE", "/admin/licences/{licence}"): Operation(
        "Delete a licence that nothing uses and nobody accepted",
        "administrator",
        query=("tenant",),
        statuses=GONE,
        refusals=(404, 409, 503),
    ),
    ("POST", "/admin/licences/{licence}/versions"): Operation(
        "Ask everyone again",
        "administrator",
        query=("tenant",),
        body="VersionIn",
        answer="Licence",
        statuses=(201,),
        refusals=CHANGED,
    ),
    ("GET", "/admin/collections/{collectionId}/licence"): Operation(
        "The licence that a collection names", "administrator", query=("tenant",), answer="Chosen", refusals=SEEN
    ),
    ("PUT", "/admin/collections/{collectionId}/licence"): Operation(
        "Have a collection name a licence, or none",
        "administrator",
        query=("tenant",),
        body="Chosen",
        answer="Chosen",
        refusals=CHANGED,
    ),
    ("GET", "/admin/licence"): Operation(
        "The licence of collections that name none",
        "administrator",
        query=("tenant",),
        answer="Chosen",
        refusals=SEEN,
    ),
    ("PUT", "/admin/licence"): Operation(
        "Choose it, or none",
        "administrator",
        query=("tenant",),
        body="Chosen",
        answer="Chosen",
        refusals=CHANGED,
    ),
    ("GET", "/admin/roles"): Operation(
        "Roles beside REGARDS' own", "administrator", query=_PAGE, answer="Roles", refusals=CHANGED
    ),
    ("GET", "/admin/roles/{role}"): Operation(
        "A role", "administrator", query=("tenant",), answer="Role", refusals=SEEN
    ),
    ("PUT", "/admin/roles/{role}"): Operation(
        "Make a role, or give it another parent",
        "administrator",
        query=("tenant",),
        body="RoleIn",
        answer="Role",
        statuses=NEW,
        refusals=CHANGED,
    ),
    ("DELETE", "/admin/roles/{role}"): Operation(
        "Delete a role", "administrator", query=("tenant",), statuses=GONE, refusals=SEEN
    ),
    ("GET", "/admin/keys"): Operation(
        "API keys of the tenant, the newest first",
        "administrator",
        query=("email", "tenant"),
        answer="Keys",
        refusals=CHANGED,
        text="At most a thousand. Revoked ones come last.",
    ),
    ("POST", "/admin/keys"): Operation(
        "Make an API key for a user of the tenant",
        "administrator",
        in_person=True,
        query=("tenant",),
        body="KeyIn",
        answer="NewKey",
        statuses=(201,),
        refusals=(404, 409, 503),
        text="`key` is told once, here. An API key cannot make another.",
    ),
    ("DELETE", "/admin/keys/{id}"): Operation(
        "Revoke an API key", "administrator", query=("tenant",), statuses=GONE, refusals=CHANGED
    ),
    ("GET", "/admin/downloads"): Operation(
        "Downloads and refusals, the newest first",
        "administrator",
        query=(*_RECORDS, "product", "status", "verdict"),
        answer="Downloads",
        types=_STREAMS,
        refusals=CHANGED,
        text="JSON comes by pages; CSV (separated by `;`) and NDJSON are streamed whole.",
    ),
    ("GET", "/admin/changes"): Operation(
        "What administrators changed, the newest first",
        "administrator",
        query=(*_RECORDS, "action", "object"),
        answer="Changes",
        types=_STREAMS,
        refusals=CHANGED,
        text="As the record of downloads; `email` is the administrator's.",
    ),
}
"""By method and path."""
