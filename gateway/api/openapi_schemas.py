"""Parameters and shapes of bodies (JSON Schema 2020-12) in the description of the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from gateway.administration.rights import FILE_LEVELS, METADATA_LEVELS, QUALITY_LEVELS
from gateway.administration.roles import PARENTS
from gateway.api.openapi_orders import ORDER_PARAMETERS, ORDER_PATH_PARAMETERS, ORDER_SCHEMAS
from gateway.identity.principal import SCOPES, Credential
from gateway.identity.sessions import COOKIE
from gateway.links import LINK

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_TEXT_OR_NULL: Json = {"type": ["string", "null"]}
_WHOLE: Json = {"type": "integer"}
_WHOLE_OR_NULL: Json = {"type": ["integer", "null"]}
_NUMBER_OR_NULL: Json = {"type": ["number", "null"]}
_TRUTH: Json = {"type": "boolean"}
_TIME: Json = {"type": "string", "format": "date-time"}
_TIME_OR_NULL: Json = {"type": ["string", "null"], "format": "date-time"}
_LIMIT: Json = {"type": "integer", "minimum": -1, "description": "-1 is unlimited, 0 forbids."}


def _object(required: Mapping[str, Json], optional: Mapping[str, Json] | None = None, *, open_: bool = False) -> Json:
    found: Json = {"type": "object", "properties": {**required, **(optional or {})}}
    if required:
        found["required"] = list(required)
    if not open_:
        found["additionalProperties"] = False
    return found


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _page(name: str, items: Json) -> Json:
    return _object(
        {name: _list(items), "next": {**_TEXT_OR_NULL, "description": "What `cursor` takes; null: no more."}}
    )


def _one_of(*values: str) -> Json:
    return {"type": "string", "enum": list(values)}


_LIMITS = {"maxQuota": _LIMIT, "rateLimit": _LIMIT}
_RULE_KEY = {
    "subject": _one_of("tenant", "group", "role", "user", "anonymous"),
    "metric": _one_of("downloads", "bytes", "concurrent", "rate"),
    "period": _TEXT,
    "value": _LIMIT,
}
_RULE_MORE = {
    "name": _TEXT,
    "shared": _TRUTH,
    "burst": _WHOLE,
    "slowRate": _WHOLE_OR_NULL,
    "fail": _one_of("closed", "capped"),
}
_RIGHT = {"metadataAccessLevel": _one_of(*METADATA_LEVELS), "fileAccessLevel": _one_of(*FILE_LEVELS)}
_RIGHT_MORE: dict[str, Json] = {
    "qualityFilter": {"oneOf": [_ref("QualityFilter"), {"type": "null"}]},
    "policy": _TEXT_OR_NULL,
    "policyOptions": {"type": ["object", "null"]},
}
_GROUPS = {**_list(_TEXT), "maxItems": 1000, "description": "Names."}
_SCOPES = {**_list(_one_of(*sorted(SCOPES))), "minItems": 1}
_NETWORKS: Json = {"type": ["array", "null"], "items": {**_TEXT, "description": "Like 192.0.2.0/24."}, "maxItems": 100}
_KEY_MORE = {"scopes": _SCOPES, "networks": _NETWORKS, "expires": _TIME_OR_NULL}
_LABEL: Json = {"type": "string", "minLength": 1, "maxLength": 200}
_KEY = {
    "id": _TEXT,
    "label": _LABEL,
    "subject": _TEXT,
    "email": _TEXT,
    "role": _TEXT,
    "groups": _list(_TEXT),
    "scopes": _SCOPES,
    "networks": _NETWORKS,
    "created": _TIME,
    "createdBy": _TEXT,
    "expires": _TIME_OR_NULL,
    "lastUsed": _TIME_OR_NULL,
    "revoked": _TIME_OR_NULL,
}
_LINK_MORE = {
    "expires": _TIME_OR_NULL,
    "downloads": {**_WHOLE_OR_NULL, "minimum": 1, "description": "How many it is good for."},
    "bytes": {**_WHOLE_OR_NULL, "minimum": 1, "description": "How many it is good for."},
    "network": {**_TEXT_OR_NULL, "description": "That it may be used from."},
}
_AMOUNT = _object({"downloads": _WHOLE, "bytes": _WHOLE})
_VERDICT = _one_of("whole", "cut", "redirected", "offloaded", "refused", "failed")
_WHO = {
    "tenant": _TEXT,
    "subject": _TEXT_OR_NULL,
    "email": _TEXT_OR_NULL,
    "role": _TEXT_OR_NULL,
    "credential": _TEXT_OR_NULL,
    "address": _TEXT_OR_NULL,
}

_FOUND_FILE = {
    "dataType": _TEXT,
    "reference": {**_TRUTH, "description": "Whether somebody else has it: its `uri` takes no credential of this API."},
    "uri": {**_TEXT, "description": "Where it is downloaded."},
    "mimeType": _TEXT_OR_NULL,
    "online": {**_TRUTH, "description": "Whether it can be had at once."},
    "checksum": _TEXT_OR_NULL,
    "digestAlgorithm": _TEXT_OR_NULL,
    "filesize": {**_WHOLE_OR_NULL, "description": "Bytes."},
    "filename": _TEXT,
    "types": _list(_TEXT),
}
_PRODUCT = _object(
    {
        "id": {**_TEXT, "description": "URN."},
        "providerId": _TEXT,
        "entityType": _one_of("DATA"),
        "type": _one_of("Feature"),
        "label": _TEXT,
        "tags": {**_list(_TEXT), "description": "The URN of its dataset, and what else it is tagged with."},
        "creationDate": _TIME,
        "lastUpdate": _TIME,
        "properties": {"type": "object"},
        "files": {
            "type": "object",
            "additionalProperties": _list(_object(_FOUND_FILE)),
            "description": "By data type: those that the caller may download.",
        },
    },
    {
        "model": _TEXT,
        "geometry": {"type": "object"},
        "bbox": {**_list({"type": "number"}), "minItems": 4, "maxItems": 4},
    },
)

SCHEMAS: Json = {
    "Problem": _object(
        {"type": _TEXT, "title": _TEXT, "status": _WHOLE, "detail": _TEXT, "code": _TEXT, "instance": _TEXT}, open_=True
    ),
    "RegardsError": {
        "anyOf": [
            _object({"messages": _list(_TEXT)}, open_=True),
            _object({"license": _TEXT, "accept": _TEXT}, open_=True),
            {"type": "object"},
        ]
    },
    "StacError": _object({"code": _TEXT, "description": _TEXT}, open_=True),
    "Number": _WHOLE,
    "Empty": _object({}),
    "Named": _object({"name": _TEXT}),
    "Emails": {**_list(_TEXT), "maxItems": 1000},
    "RegardsValues": _object(_LIMITS),
    "RegardsLimits": _object({"email": _TEXT, **_LIMITS}),
    "RegardsLimitsOfSeveral": _list(_ref("RegardsLimits")),
    "RegardsUsage": _object({"email": _TEXT, **_LIMITS, "currentQuota": _WHOLE, "currentRate": _WHOLE}),
    "RegardsUsages": _list(_ref("RegardsUsage")),
    "Setting": _object({"value": _LIMIT}, {"name": _TEXT, "description": _TEXT, "defaultValue": _LIMIT}),
    "Settings": _list(_ref("Setting")),
    "Rule": _object(_RULE_KEY, _RULE_MORE),
    "Rules": _page("rules", _ref("Rule")),
    "Usage": _object(
        {
            "account": _TEXT,
            "limits": _list({"type": "object"}),
            "totals": _object({"all": _AMOUNT, "today": _AMOUNT, "month": _AMOUNT}),
            "running": _WHOLE,
            "reserved": _AMOUNT,
        }
    ),
    "Health": _object(
        {
            "status": _TEXT,
            "live": _TRUTH,
            "ready": _TRUTH,
            "reasons": {"type": "object", "additionalProperties": _TEXT},
            "alarms": {"type": "object", "additionalProperties": _WHOLE},
            "notifications": _object({"connected": _TRUTH, "since": _TIME}),
        }
    ),
    "Caller": _object(
        {
            "tenant": _TEXT,
            "subject": _TEXT,
            "email": {**_TEXT_OR_NULL, "description": "null: anonymous."},
            "role": _TEXT,
            "groups": _list(_TEXT),
            "credential": _one_of(*get_args(Credential)),
        }
    ),
    "Key": _object(_KEY),
    "Keys": _list(_ref("Key")),
    "KeysOfTenant": _page("keys", _ref("Key")),
    "NewKey": _object({**_KEY, "key": {**_TEXT, "description": "What is shown; nobody can tell it again."}}),
    "OwnKeyIn": _object({"label": _LABEL}, _KEY_MORE),
    "KeyIn": _object(
        {"label": _LABEL, "email": _TEXT}, {"subject": _TEXT, "role": _TEXT, "groups": _GROUPS, **_KEY_MORE}
    ),
    "LinkIn": {
        "oneOf": [
            _object({"product": _TEXT, "checksum": _TEXT}, _LINK_MORE),
            _object({"collection": _TEXT, "item": _TEXT, "asset": _TEXT}, _LINK_MORE),
        ]
    },
    "Link": _object({"url": {**_TEXT, "format": "uri"}, "expires": _TIME, "id": _TEXT}),
    "Truth": _TRUTH,
    "Urns": {**_list(_TEXT), "maxItems": 1000},
    "RegardsProduct": _object({"content": _PRODUCT, "links": _list({"type": "object"})}),
    "RegardsProducts": _object(
        {
            "metadata": _object({"size": _WHOLE, "totalElements": _WHOLE, "totalPages": _WHOLE, "number": _WHOLE}),
            "content": _list(_ref("RegardsProduct")),
            "links": _list(_object({"rel": _one_of("self", "prev", "next"), "href": _TEXT})),
        }
    ),
    "RegardsLicence": _object(
        {
            "content": _object({"accepted": _TRUTH, "licenseLink": {**_TEXT_OR_NULL, "format": "uri"}}),
            "links": _list({"type": "object"}),
        }
    ),
    "CollectionLicence": _object(
        {
            "accepted": _TRUTH,
            "acceptedAt": _TIME_OR_NULL,
            "licenseLink": {**_TEXT_OR_NULL, "format": "uri", "description": "null: there is none."},
            "title": _TEXT_OR_NULL,
            "version": _WHOLE_OR_NULL,
            "public": {**_TRUTH, "description": "Whether nobody need accept it."},
            "links": _list(_object({"rel": _TEXT, "href": {**_TEXT, "format": "uri"}})),
        }
    ),
    "Live": _object({"status": _TEXT}),
    "Tenant": _object({"name": _TEXT, "createdAt": _TIME, "licence": _TEXT_OR_NULL}),
    "Tenants": _page("tenants", _ref("Tenant")),
    "GroupIn": _object({"isPublic": _TRUTH}),
    "Group": _object({"name": _TEXT, "isPublic": _TRUTH}, {"members": _WHOLE}),
    "Groups": _page("groups", _ref("Group")),
    "Members": _page("members", _TEXT),
    "MembersIn": _object({"members": _list(_TEXT)}),
    "MembersChanged": _object({"added": _list(_TEXT), "removed": _list(_TEXT)}),
    "QualityFilter": _object(
        {},
        {
            "minScore": _NUMBER_OR_NULL,
            "maxScore": _NUMBER_OR_NULL,
            "qualityLevels": {"type": ["array", "null"], "items": _one_of(*QUALITY_LEVELS), "minItems": 1},
        },
    ),
    "RightIn": _object(_RIGHT, {**_RIGHT_MORE, "group": _TEXT}),
    "Right": _object({"group": _TEXT, **_RIGHT, **_RIGHT_MORE}),
    "Rights": _page("rights", _ref("Right")),
    "LicenceIn": _object({"url": {**_TEXT, "format": "uri"}}, {"title": _TEXT_OR_NULL, "isPublic": _TRUTH}),
    "Licence": _object(
        {
            "name": _TEXT,
            "title": _TEXT_OR_NULL,
            "url": {**_TEXT, "format": "uri"},
            "isPublic": {**_TRUTH, "description": "Shown and linked, never in the way."},
            "version": {**_WHOLE, "description": "A new one asks everyone again."},
            "isDefault": _TRUTH,
        }
    ),
    "Licences": _page("licences", _ref("Licence")),
    "VersionIn": _object({}, {"url": {"type": ["string", "null"], "format": "uri"}}),
    "Chosen": _object({"licence": _TEXT_OR_NULL}),
    "RoleIn": _object({"parent": _one_of(*PARENTS)}),
    "Role": _object({"name": _TEXT, "parent": _one_of(*PARENTS)}),
    "Roles": _page("roles", _ref("Role")),
    "Download": _object(
        {
            "at": _TIME,
            **_WHO,
            "method": _TEXT,
            "route": _TEXT,
            "path": _TEXT,
            "product": _TEXT_OR_NULL,
            "file": _TEXT_OR_NULL,
            "fileId": _WHOLE_OR_NULL,
            "verdict": _VERDICT,
            "reason": _TEXT_OR_NULL,
            "status": _WHOLE_OR_NULL,
            "promised": _WHOLE_OR_NULL,
            "sent": _WHOLE_OR_NULL,
            "storage": _TEXT_OR_NULL,
            "delivery": _TEXT_OR_NULL,
            "durationMs": {"type": "number"},
            "requestId": _TEXT_OR_NULL,
            "userAgent": _TEXT_OR_NULL,
        }
    ),
    "Downloads": _page("downloads", _ref("Download")),
    "Change": _object(
        {
            "at": _TIME,
            "actor": _TEXT,
            "action": _TEXT,
            "object": _TEXT,
            "detail": {"type": "object"},
            "address": _TEXT_OR_NULL,
            "requestId": _TEXT_OR_NULL,
        }
    ),
    "Changes": _page("changes", _ref("Change")),
    **ORDER_SCHEMAS,
}


def _query(name: str, description: str, schema: Json | None = None) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema or _TEXT}


def _field(name: str, description: str) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": _TEXT}


PARAMETERS: Json = {
    "tenant": _query("tenant", "Tenant to act on, for INSTANCE_ADMIN; that of the token unless given."),
    "limit": _query("limit", "Most entries.", {"type": "integer", "minimum": 1}),
    "q": _query("q", 'A query like `tags:"URN:…" AND properties.cloud:[0 TO 20]`; everything unless given.'),
    "page": _query("page", "Number of the page, from 0 on.", {"type": "integer", "minimum": 0}),
    "size": _query("size", "Products on a page.", {"type": "integer", "minimum": 1, "maximum": 100}),
    "sort": _query("sort", "Like `creationDate,desc`; may be there several times.", _list(_TEXT)),
    "cursor": _query("cursor", "`next` of the page before."),
    "from": _query("from", "The earliest time.", _TIME),
    "to": _query("to", "The time before which they are.", _TIME),
    "email": _query("email", "Of whom."),
    "product": _query("product", "URN."),
    "status": _query("status", "Status of the answer.", {"type": "integer"}),
    "verdict": _query("verdict", "What became of it.", _VERDICT),
    "action": _query("action", "Like group.create."),
    "object": _query("object", "What was changed."),
    "subject": _query("subject", "Whom a rule concerns.", _RULE_KEY["subject"]),
    "name": _query("name", "Of a group or role; e-mail address of a user."),
    "shared": _query("shared", "Whether one counter serves all.", _TRUTH),
    "metric": _query("metric", "Of what.", _RULE_KEY["metric"]),
    "period": _query("period", "In which time."),
    "names": _query("names", "Which settings.", _list(_TEXT)),
    "user_email": _query("user_email", "Of whom.", _list(_TEXT)),
    "isContentInline": _query("isContentInline", "Have a browser show the file.", _TRUTH),
    "next": _query("next", "Path of this gateway to go to then; `/me` unless given."),
    "code": _query("code", "What the identity provider gave: RFC 6749 §4.1.2."),
    "state": _query("state", "What it was sent: RFC 6749 §4.1.2."),
    "error": _query("error", "Why it gave none: RFC 6749 §4.1.2.1."),
    "acceptLicense": _query("acceptLicense", "Accept the licence first.", _TRUTH),
    "dryRun": _query("dryRun", "Tell what it would be charged, and change nothing.", _TRUTH),
    "Range": _field("Range", "RFC 9110 §14.2."),
    "If-Match": _field("If-Match", "RFC 9110 §13.1.1."),
    "If-None-Match": _field("If-None-Match", "RFC 9110 §13.1.2."),
    "Prefer": _field("Prefer", "`quota`: RFC 7240."),
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
    **ORDER_PATH_PARAMETERS,
}
