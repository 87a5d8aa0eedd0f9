"""Parameters and shapes of bodies (JSON Schema 2020-12) in the description of the API."""

from __future__ import annotations

from typing import get_args

from gateway.administration.rights import FILE_LEVELS, METADATA_LEVELS, QUALITY_LEVELS
from gateway.administration.roles import PARENTS
from gateway.api.openapi_basket import BASKET_PATH_PARAMETERS, BASKET_SCHEMAS
from gateway.api.openapi_files import FILES
from gateway.api.openapi_nearline import NEARLINE_PATH_PARAMETERS, NEARLINE_SCHEMAS
from gateway.api.openapi_orders import ORDER_PARAMETERS, ORDER_PATH_PARAMETERS, ORDER_SCHEMAS
from gateway.api.openapi_shapes import (
    NUMBER_OR_NULL,
    TEXT,
    TEXT_OR_NULL,
    TIME,
    TIME_OR_NULL,
    TRUTH,
    WHOLE,
    WHOLE_OR_NULL,
    Json,
    list_of,
    object_of,
    one_of,
    page_of,
    ref,
)
from gateway.identity.principal import SCOPES, Credential
from gateway.identity.sessions import COOKIE
from gateway.links import LINK

_LIMIT: Json = {"type": "integer", "minimum": -1, "description": "-1 is unlimited, 0 forbids."}

_LIMITS = {"maxQuota": _LIMIT, "rateLimit": _LIMIT}
_RULE_KEY = {
    "subject": one_of("tenant", "group", "role", "user", "anonymous"),
    "metric": one_of("downloads", "bytes", "concurrent", "rate"),
    "period": TEXT,
    "value": _LIMIT,
}
_RULE_MORE = {
    "name": TEXT,
    "shared": TRUTH,
    "burst": WHOLE,
    "slowRate": WHOLE_OR_NULL,
    "fail": one_of("closed", "capped"),
}
_RIGHT = {"metadataAccessLevel": one_of(*METADATA_LEVELS), "fileAccessLevel": one_of(*FILE_LEVELS)}
_RIGHT_MORE: dict[str, Json] = {
    "qualityFilter": {"oneOf": [ref("QualityFilter"), {"type": "null"}]},
    "policy": TEXT_OR_NULL,
    "policyOptions": {"type": ["object", "null"]},
}
_GROUPS = {**list_of(TEXT), "maxItems": 1000, "description": "Names."}
_SCOPES = {**list_of(one_of(*sorted(SCOPES))), "minItems": 1}
_NETWORKS: Json = {"type": ["array", "null"], "items": {**TEXT, "description": "Like 192.0.2.0/24."}, "maxItems": 100}
_KEY_MORE = {"scopes": _SCOPES, "networks": _NETWORKS, "expires": TIME_OR_NULL}
_LABEL: Json = {"type": "string", "minLength": 1, "maxLength": 200}
_KEY = {
    "id": TEXT,
    "label": _LABEL,
    "subject": TEXT,
    "email": TEXT,
    "role": TEXT,
    "groups": list_of(TEXT),
    "scopes": _SCOPES,
    "networks": _NETWORKS,
    "created": TIME,
    "createdBy": TEXT,
    "expires": TIME_OR_NULL,
    "lastUsed": TIME_OR_NULL,
    "revoked": TIME_OR_NULL,
}
_LINK_MORE = {
    "expires": TIME_OR_NULL,
    "downloads": {**WHOLE_OR_NULL, "minimum": 1, "description": "How many it is good for."},
    "bytes": {**WHOLE_OR_NULL, "minimum": 1, "description": "How many it is good for."},
    "network": {**TEXT_OR_NULL, "description": "That it may be used from."},
}
_AMOUNT = object_of({"downloads": WHOLE, "bytes": WHOLE})
_VERDICT = one_of("whole", "cut", "redirected", "offloaded", "refused", "failed")
_WHO = {
    "tenant": TEXT,
    "subject": TEXT_OR_NULL,
    "email": TEXT_OR_NULL,
    "role": TEXT_OR_NULL,
    "credential": TEXT_OR_NULL,
    "credentialId": TEXT_OR_NULL,
    "address": TEXT_OR_NULL,
}

SCHEMAS: Json = {
    **FILES,
    "Problem": object_of(
        {"type": TEXT, "title": TEXT, "status": WHOLE, "detail": TEXT, "code": TEXT, "instance": TEXT}, open_=True
    ),
    "RegardsError": {
        "anyOf": [
            object_of({"messages": list_of(TEXT)}, open_=True),
            object_of({"license": TEXT, "accept": TEXT}, open_=True),
            {"type": "object"},
        ]
    },
    "exception": {
        **object_of({"code": TEXT}, {"description": TEXT}, open_=True),
        "description": "Information about the exception: an error code plus an optional description.",
    },
    "Number": WHOLE,
    "Empty": object_of({}),
    "Named": object_of({"name": TEXT}),
    "Emails": {**list_of(TEXT), "maxItems": 1000},
    "RegardsValues": object_of(_LIMITS),
    "RegardsLimits": object_of({"email": TEXT, **_LIMITS}),
    "RegardsLimitsOfSeveral": list_of(ref("RegardsLimits")),
    "RegardsUsage": object_of({"email": TEXT, **_LIMITS, "currentQuota": WHOLE, "currentRate": WHOLE}),
    "RegardsUsages": list_of(ref("RegardsUsage")),
    "Setting": object_of({"value": _LIMIT}, {"name": TEXT, "description": TEXT, "defaultValue": _LIMIT}),
    "Settings": list_of(ref("Setting")),
    "Rule": object_of(_RULE_KEY, _RULE_MORE),
    "Rules": page_of("rules", ref("Rule")),
    "Usage": object_of(
        {
            "account": TEXT,
            "limits": list_of({"type": "object"}),
            "totals": object_of({"all": _AMOUNT, "today": _AMOUNT, "month": _AMOUNT}),
            "running": WHOLE,
            "reserved": _AMOUNT,
        }
    ),
    "Cache": object_of({"sizeLimitInBytes": WHOLE, "occupedSizeInBytes": WHOLE}),
    "Health": object_of(
        {
            "status": TEXT,
            "live": TRUTH,
            "ready": TRUTH,
            "reasons": {"type": "object", "additionalProperties": TEXT},
            "alarms": {"type": "object", "additionalProperties": WHOLE},
            "notifications": object_of({"connected": TRUTH, "since": TIME}),
        }
    ),
    "Caller": object_of(
        {
            "tenant": TEXT,
            "subject": TEXT,
            "email": {**TEXT_OR_NULL, "description": "null: anonymous."},
            "role": TEXT,
            "groups": list_of(TEXT),
            "credential": one_of(*get_args(Credential)),
            "scopes": {
                **_SCOPES,
                "type": ["array", "null"],
                "description": "What the API key is good for; null: all that the caller may.",
            },
            "expires": {**TIME_OR_NULL, "description": "When the API key ends; null: not by itself."},
        }
    ),
    "Key": object_of(_KEY),
    "Keys": list_of(ref("Key")),
    "KeysOfTenant": page_of("keys", ref("Key")),
    "NewKey": object_of({**_KEY, "key": {**TEXT, "description": "What is shown; nobody can tell it again."}}),
    "OwnKeyIn": object_of({"label": _LABEL}, _KEY_MORE),
    "KeyIn": object_of(
        {"label": _LABEL, "email": TEXT}, {"subject": TEXT, "role": TEXT, "groups": _GROUPS, **_KEY_MORE}
    ),
    "LinkIn": {
        "oneOf": [
            object_of({"product": TEXT, "checksum": TEXT}, _LINK_MORE),
            object_of({"collection": TEXT, "item": TEXT, "asset": TEXT}, _LINK_MORE),
        ]
    },
    "Link": object_of({"url": {**TEXT, "format": "uri"}, "expires": TIME, "id": TEXT}),
    "Accepted": object_of({}, {"next": {**TEXT, "description": "Path of this gateway to go to then."}}),
    "Truth": TRUTH,
    "Urns": {**list_of(TEXT), "maxItems": 1000},
    "RegardsLicence": object_of(
        {
            "content": object_of({"accepted": TRUTH, "licenseLink": {**TEXT_OR_NULL, "format": "uri"}}),
            "links": list_of({"type": "object"}),
        }
    ),
    "CollectionLicence": object_of(
        {
            "accepted": TRUTH,
            "acceptedAt": TIME_OR_NULL,
            "licenseLink": {**TEXT_OR_NULL, "format": "uri", "description": "null: there is none."},
            "title": TEXT_OR_NULL,
            "version": WHOLE_OR_NULL,
            "public": {**TRUTH, "description": "Whether nobody need accept it."},
            "links": list_of(object_of({"rel": TEXT, "href": {**TEXT, "format": "uri"}})),
        }
    ),
    "Live": object_of({"status": TEXT}),
    "Tenant": object_of({"name": TEXT, "createdAt": TIME, "licence": TEXT_OR_NULL}),
    "Tenants": page_of("tenants", ref("Tenant")),
    "GroupIn": object_of({"isPublic": TRUTH}),
    "Group": object_of({"name": TEXT, "isPublic": TRUTH}, {"members": WHOLE}),
    "Groups": page_of("groups", ref("Group")),
    "Members": page_of("members", TEXT),
    "MembersIn": object_of({"members": list_of(TEXT)}),
    "MembersChanged": object_of({"added": list_of(TEXT), "removed": list_of(TEXT)}),
    "QualityFilter": object_of(
        {},
        {
            "minScore": NUMBER_OR_NULL,
            "maxScore": NUMBER_OR_NULL,
            "qualityLevels": {"type": ["array", "null"], "items": one_of(*QUALITY_LEVELS), "minItems": 1},
        },
    ),
    "RightIn": object_of(_RIGHT, {**_RIGHT_MORE, "group": TEXT}),
    "Right": object_of({"group": TEXT, **_RIGHT, **_RIGHT_MORE}),
    "Rights": page_of("rights", ref("Right")),
    "LicenceIn": object_of({"url": {**TEXT, "format": "uri"}}, {"title": TEXT_OR_NULL, "isPublic": TRUTH}),
    "Licence": object_of(
        {
            "name": TEXT,
            "title": TEXT_OR_NULL,
            "url": {**TEXT, "format": "uri"},
            "isPublic": {**TRUTH, "description": "Shown and linked, never in the way."},
            "version": {**WHOLE, "description": "A new one asks everyone again."},
            "isDefault": TRUTH,
        }
    ),
    "Licences": page_of("licences", ref("Licence")),
    "VersionIn": object_of({}, {"url": {"type": ["string", "null"], "format": "uri"}}),
    "Chosen": object_of({"licence": TEXT_OR_NULL}),
    "RoleIn": object_of({"parent": one_of(*PARENTS)}),
    "Role": object_of({"name": TEXT, "parent": one_of(*PARENTS)}),
    "Roles": page_of("roles", ref("Role")),
    "Download": object_of(
        {
            "at": TIME,
            **_WHO,
            "method": TEXT,
            "route": TEXT,
            "path": TEXT,
            "product": TEXT_OR_NULL,
            "file": TEXT_OR_NULL,
            "fileId": WHOLE_OR_NULL,
            "verdict": _VERDICT,
            "reason": TEXT_OR_NULL,
            "status": WHOLE_OR_NULL,
            "promised": WHOLE_OR_NULL,
            "sent": WHOLE_OR_NULL,
            "storage": TEXT_OR_NULL,
            "delivery": TEXT_OR_NULL,
            "durationMs": {"type": "number"},
            "requestId": TEXT_OR_NULL,
            "userAgent": TEXT_OR_NULL,
        }
    ),
    "Downloads": page_of("downloads", ref("Download")),
    "Change": object_of(
        {
            "at": TIME,
            "actor": TEXT,
            "action": TEXT,
            "object": TEXT,
            "detail": {"type": "object"},
            "address": TEXT_OR_NULL,
            "requestId": TEXT_OR_NULL,
            "keyId": TEXT_OR_NULL,
        }
    ),
    "Changes": page_of("changes", ref("Change")),
    **BASKET_SCHEMAS,
    **ORDER_SCHEMAS,
    **NEARLINE_SCHEMAS,
}


def _query(name: str, description: str, schema: Json | None = None) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema or TEXT}


def _field(name: str, description: str) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": TEXT}


PARAMETERS: Json = {
    "tenant": _query("tenant", "Tenant to act on, for INSTANCE_ADMIN; that of the token unless given."),
    "limit": _query("limit", "Most entries.", {"type": "integer", "minimum": 1}),
    "q": _query("q", 'A query like `tags:"URN:…" AND properties.cloud:[0 TO 20]`; everything unless given.'),
    "page": _query("page", "Number of the page, from 0 on.", {"type": "integer", "minimum": 0}),
    "size": _query("size", "Products on a page.", {"type": "integer", "minimum": 1, "maximum": 100}),
    "sort": _query("sort", "Like `creationDate,desc`; may be there several times.", list_of(TEXT)),
    "cursor": _query("cursor", "`next` of the page before."),
    "from": _query("from", "The earliest time.", TIME),
    "to": _query("to", "The time before which they are.", TIME),
    "email": _query("email", "Of whom."),
    "product": _query("product", "URN."),
    "status": _query("status", "Status of the answer.", {"type": "integer"}),
    "verdict": _query("verdict", "What became of it.", _VERDICT),
    "action": _query("action", "Like group.create."),
    "object": _query("object", "What was changed."),
    "subject": _query("subject", "Whom a rule concerns.", _RULE_KEY["subject"]),
    "name": _query("name", "Of a group or role; e-mail address of a user."),
    "shared": _query("shared", "Whether one counter serves all.", TRUTH),
    "metric": _query("metric", "Of what.", _RULE_KEY["metric"]),
    "period": _query("period", "In which time."),
    "names": _query("names", "Which settings.", list_of(TEXT)),
    "user_email": _query("user_email", "Of whom.", list_of(TEXT)),
    "isContentInline": _query("isContentInline", "Have a browser show the file.", TRUTH),
    "next": _query("next", "Path of this gateway to go to then; `/me` unless given."),
    "code": _query("code", "What the identity provider gave: RFC 6749 §4.1.2."),
    "state": _query("state", "What it was sent: RFC 6749 §4.1.2."),
    "error": _query("error", "Why it gave none: RFC 6749 §4.1.2.1."),
    "acceptLicense": _query("acceptLicense", "Accept the licence first.", TRUTH),
    "dryRun": _query("dryRun", "Tell what it would be charged, and change nothing.", TRUTH),
    "Range": _field("Range", "RFC 9110 §14.2."),
    "If-Match": _field("If-Match", "RFC 9110 §13.1.1."),
    "If-None-Match": _field("If-None-Match", "RFC 9110 §13.1.2."),
    "Prefer": _field("Prefer", "`quota` or `respond-async`: RFC 7240."),
    **{name: _query(name, *of_orders) for name, of_orders in ORDER_PARAMETERS.items()},
}

SECURITY_SCHEMES: Json = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token of an identity provider; or an API key, which begins with `gdk_`.",
    },
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "An API key, good for its scopes alone: 403 elsewhere.",
    },
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "An API key as password, whatever the user; or as user, without a password.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "Of a browser that logged in at `/login`. What is not GET or HEAD must come from a page of this "
        "gateway (`Origin`), else it is 403. Does not count beside another credential.",
    },
    "link": {
        "type": "apiKey",
        "in": "query",
        "name": LINK,
        "description": "The token of a signed link, for GET and HEAD of the one path that it was made for.",
    },
    "scope": {
        "type": "apiKey",
        "in": "query",
        "name": "scope",
        "description": "Name of the tenant, for anonymous callers.",
    },
}

LOCATION: Json = {"description": "Where to go.", "required": True, "schema": {**TEXT, "format": "uri"}}

TAGS = {
    "Download": "All endpoints related to STAC API - Download.",
    "stac": "The STAC API besides.",
    "regards": "REGARDS' catalogue: downloads, rights, licences, quotas.",
    "gateway": "Of the gateway itself: who one is, keys, links, administration.",
}

PATH_PARAMETERS = {
    "urn": "URN of the product or dataset.",
    "id": "Its id.",
    "aip_id": "URN of the product.",
    "checksum": "Checksum of the file, hexadecimal.",
    "collectionId": "Id of the STAC Collection.",
    "itemId": "Id of the STAC Item.",
    "assetId": "Key of the asset.",
    "user_email": "E-mail address of a user.",
    "email": "E-mail address.",
    "group": "Name of an access group.",
    "licence": "Name of a licence.",
    "role": "Name of a role.",
    "name": "Its name.",
    "tenant": "Name of the tenant.",
    **BASKET_PATH_PARAMETERS,
    **ORDER_PATH_PARAMETERS,
    **NEARLINE_PATH_PARAMETERS,
}
