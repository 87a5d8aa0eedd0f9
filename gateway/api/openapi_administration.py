"""What is to be said of the routes below ``/admin/``."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.api.openapi_operation import CHANGED, GONE, NEW, Operation

_OF_TENANT = ("tenant",)
_RECORDS = ("from", "to", "email", "limit", "cursor", "tenant")
_STREAMS = ("application/json", "text/csv", "application/x-ndjson")


def _list(summary: str, answer: str) -> Operation:
    return Operation(summary, "administrator", query=("limit", "cursor", *_OF_TENANT), answer=answer, refusals=CHANGED)


def _see(summary: str, answer: str) -> Operation:
    return Operation(summary, "administrator", query=_OF_TENANT, answer=answer, refusals=CHANGED)


def _write(
    summary: str, body: str | None, answer: str | None, statuses: tuple[int, ...] = (200,), text: str = ""
) -> Operation:
    return Operation(
        summary,
        "administrator",
        query=_OF_TENANT,
        body=body,
        answer=answer,
        statuses=statuses,
        refusals=CHANGED,
        text=text,
    )


def _delete(summary: str, refusals: tuple[int, ...] = CHANGED) -> Operation:
    return Operation(summary, "administrator", query=_OF_TENANT, statuses=GONE, refusals=refusals)


ADMINISTRATION: Mapping[tuple[str, str], Operation] = {
    ("GET", "/admin/tenants"): Operation(
        "Tenants", "instance", query=("limit", "cursor"), answer="Tenants", refusals=(400, 503)
    ),
    ("PUT", "/admin/tenants/{name}"): Operation(
        "Make a tenant", "instance", body="Empty", answer="Named", statuses=NEW, refusals=(400, 503)
    ),
    ("DELETE", "/admin/tenants/{name}"): Operation(
        "Delete a tenant that is empty", "instance", statuses=GONE, refusals=(400, 404, 409, 503)
    ),
    ("GET", "/admin/groups"): _list("Access groups", "Groups"),
    ("GET", "/admin/groups/{group}"): _see("An access group", "Group"),
    ("PUT", "/admin/groups/{group}"): _write(
        "Make a group, or change it",
        "GroupIn",
        "Group",
        NEW,
        "Its name stays: tokens and rules of quota carry it. Limits of a group are at `/quota/rules`.",
    ),
    ("DELETE", "/admin/groups/{group}"): _delete("Delete a group with its memberships and rights"),
    ("GET", "/admin/groups/{group}/members"): _list("Members that the database knows", "Members"),
    ("PUT", "/admin/groups/{group}/members"): _write("Have exactly these members", "MembersIn", "MembersChanged"),
    ("PUT", "/admin/groups/{group}/members/{email}"): _write("Add a member", None, None, GONE),
    ("DELETE", "/admin/groups/{group}/members/{email}"): _delete("Remove a member"),
    ("GET", "/admin/collections/{collectionId}/rights"): _list("Rights of groups to a collection", "Rights"),
    ("GET", "/admin/collections/{collectionId}/rights/{group}"): _see("The right of a group", "Right"),
    ("PUT", "/admin/collections/{collectionId}/rights/{group}"): _write(
        "Give a group a right, in place of the one it has", "RightIn", "Right", NEW
    ),
    ("DELETE", "/admin/collections/{collectionId}/rights/{group}"): _delete("Take a right away"),
    ("GET", "/admin/licences"): _list("Licences", "Licences"),
    ("GET", "/admin/licences/{licence}"): _see("A licence", "Licence"),
    ("PUT", "/admin/licences/{licence}"): _write(
        "Make a licence, or change it without asking anyone again", "LicenceIn", "Licence", NEW
    ),
    ("DELETE", "/admin/licences/{licence}"): _delete(
        "Delete a licence that nothing uses and nobody accepted", (400, 404, 409, 503)
    ),
    ("POST", "/admin/licences/{licence}/versions"): _write("Ask everyone again", "VersionIn", "Licence", (201,)),
    ("GET", "/admin/collections/{collectionId}/licence"): _see("The licence that a collection names", "Chosen"),
    ("PUT", "/admin/collections/{collectionId}/licence"): _write(
        "Have a collection name a licence, or none", "Chosen", "Chosen"
    ),
    ("GET", "/admin/licence"): _see("The licence of collections that name none", "Chosen"),
    ("PUT", "/admin/licence"): _write("Choose it, or none", "Chosen", "Chosen"),
    ("GET", "/admin/roles"): _list("Roles beside REGARDS' own", "Roles"),
    ("GET", "/admin/roles/{role}"): _see("A role", "Role"),
    ("PUT", "/admin/roles/{role}"): _write("Make a role, or give it another parent", "RoleIn", "Role", NEW),
    ("DELETE", "/admin/roles/{role}"): _delete("Delete a role"),
    ("GET", "/admin/keys"): Operation(
        "API keys of the tenant, the newest first",
        "administrator",
        query=("email", "limit", "cursor", *_OF_TENANT),
        answer="KeysOfTenant",
        refusals=CHANGED,
        text="Revoked ones come last.",
    ),
    ("POST", "/admin/keys"): Operation(
        "Make an API key for a user of the tenant",
        "administrator",
        in_person=True,
        query=_OF_TENANT,
        body="KeyIn",
        answer="NewKey",
        statuses=(201,),
        refusals=(404, 409, 503),
        text="`key` is told once, here. An API key cannot make another.",
    ),
    ("DELETE", "/admin/keys/{id}"): _delete("Revoke an API key"),
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
