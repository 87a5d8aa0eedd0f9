"""Every route by every kind of caller, as data: matrix.txt, and what is sent.

HEAD answers as GET does, and has no row of its own.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from gateway.identity.principal import Principal
from tests.api.support import INSTANCE_ADMIN, PROJECT_ADMIN
from tests.harness import OUTSIDER, SCIENTIST, principal

CALLERS: Mapping[str, Principal | None] = {
    "none": None,
    "anon": None,
    "A": SCIENTIST,
    "B": OUTSIDER,
    "C": principal("stranger", "science", tenant="other"),
    "adm": PROJECT_ADMIN,
    "ins": INSTANCE_ADMIN,
    "old": SCIENTIST,
    "far": principal("project", role="PROJECT_ADMIN", tenant="other"),
    "key": SCIENTIST,
    "akey": PROJECT_ADMIN,
    "link": SCIENTIST,
    "ses": SCIENTIST,
    "dead": SCIENTIST,
}
"""No credential; anonymous with the name of the tenant; tokens of a user with the right to the file, of one without, of
one of another tenant, of the administrator of the tenant and of that of the instance; an old token of A; a token of the
administrator of another tenant; an API key of A with the scope ``download``; one of the administrator of the tenant
with the scope ``admin``; a link of A to the file's address as an asset; a browser session of A, by requests without
Origin; an API key of A with all scopes that was revoked.
"""

LIMITS = {"maxQuota": 7, "rateLimit": -1}
RULE = {"subject": "group", "name": "doomed", "metric": "downloads", "period": "day", "value": 3}
RIGHT = {"metadataAccessLevel": "FULL_ACCESS", "fileAccessLevel": "NO_ACCESS"}
FILES = [{"collection": "{collectionId}", "item": "{itemId}", "asset": "{assetId}"}]
COLLECTION = {"type": "Collection", "stac_version": "1.1.0", "description": "", "license": "other", "extent": {}}
ITEM: dict[str, object] = {"type": "Feature", "geometry": None, "properties": {"datetime": "2024-01-01T00:00:00Z"}}
ITEM |= {"stac_version": "1.1.0", "links": [], "assets": {}}
_BODIES: Mapping[tuple[str, str], object] = {
    ("POST", "/quota/currents"): [SCIENTIST.email],
    ("PUT", "/quota/defaults"): LIMITS,
    ("PUT", "/quota/{user_email}"): {"email": "{user_email}", **LIMITS},
    ("PUT", "/quota/rules"): RULE,
    ("PUT", "/settings/{name}"): {"value": 7},
    ("POST", "/entities/access"): ["{urn}"],
    ("POST", "/download"): FILES,
    ("POST", "/search"): {},
    ("POST", "/links"): {"product": "{aip_id}", "checksum": "{checksum}"},
    ("POST", "/me/keys"): {"label": "made"},
    ("POST", "/admin/keys"): {"label": "made", "email": "a@example.org"},
    ("PUT", "/admin/tenants/{name}"): {},
    ("PUT", "/admin/groups/{group}"): {"isPublic": False},
    ("POST", "/collections"): {**COLLECTION, "id": "made-7f3"},
    ("PUT", "/collections/{collectionId}"): {**COLLECTION, "id": "{collectionId}"},
    ("POST", "/collections/{collectionId}/items"): {**ITEM, "id": "made-7f3", "collection": "{collectionId}"},
    ("PUT", "/collections/{collectionId}/items/{itemId}"): ITEM,
    ("PATCH", "/collections/{collectionId}/items/{itemId}"): {"properties": {"title": "Other"}},
    ("PUT", "/admin/groups/{group}/members"): {"members": ["b@example.org"]},
    ("PUT", "/admin/collections/{collectionId}/rights/{group}"): RIGHT,
    ("PUT", "/admin/licences/{licence}"): {"url": "https://example.org"},
    ("POST", "/admin/licences/{licence}/versions"): {},
    ("PUT", "/admin/collections/{collectionId}/licence"): {"licence": None},
    ("PUT", "/admin/licence"): {"licence": None},
    ("PUT", "/admin/roles/{role}"): {"parent": "EXPLOIT"},
    ("POST", "/order/basket/selection"): {"selectAllOpenSearchRequest": ""},
    ("PUT", "/order/basket/dataset/{datasetSelectionId}/updateFileFilters"): {"fileTypes": ["RAWDATA"]},
    ("POST", "/user/orders"): {"onSuccessUrl": "/"},
    ("POST", "/user/orders/{orderId}/restart"): {"onSuccessUrl": "/"},
    ("POST", "/user/orders/apply"): {"queries": [""]},
    ("POST", "/availability/files"): {"product_ids": ["{productId}"]},
    ("POST", "/restore"): {"product_ids": ["{product_id}"]},
    ("POST", "/files/availability/status"): {"checksums": ["{checksum}"]},
    ("PATCH", "/restores/{restoreId}"): {"hours": 1},
    ("POST", "/orders/search"): {},
    ("POST", "/orders/csv"): {},
}
_OF_STAC = ("/collections", "/search", "/download")
BODIES: Mapping[tuple[str, str], object] = {
    **_BODIES,
    **{(way, f"/tenants/{{tenant}}{path}"): body for (way, path), body in _BODIES.items() if path.startswith(_OF_STAC)},
}
"""What is sent; names in braces are those of `parts`."""
QUERIES: Mapping[tuple[str, str], str] = {
    ("GET", "/quotas"): f"user_email={SCIENTIST.email}",
    ("DELETE", "/quota/rules"): "subject=group&name=doomed&metric=downloads&period=day",
}

KEY, LINK_KEY = "k" * 12, "l" * 12
"""Ids of an API key of A, and of the key that his links are signed with."""

SELECTED = "2024-01-01T00:00:00.000Z"
"""When what is in the basket of A was selected."""

RESTORE = f"""
DELETE FROM products WHERE provider_id = 'made-7f3';
DELETE FROM datasets WHERE collection_id = 'made-7f3';
INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, body)
    SELECT tenant_id, dataset_id, 'URN:FEATURE:DATA:esa:doomed:V1', 'doomed', '{{"datetime": "2024-01-01T00:00:00Z"}}',
           '{{"type": "Feature", "id": "doomed", "collection": "restricted"}}'
    FROM datasets WHERE collection_id = 'restricted' ON CONFLICT DO NOTHING;
DELETE FROM groups WHERE tenant_id = (SELECT tenant_id FROM tenants WHERE name = 'other');
DELETE FROM licences WHERE tenant_id = (SELECT tenant_id FROM tenants WHERE name = 'other');
DELETE FROM roles WHERE tenant_id = (SELECT tenant_id FROM tenants WHERE name = 'other');
DELETE FROM quota_limits;
DELETE FROM api_keys WHERE label = 'made';
DELETE FROM revoked_links;
INSERT INTO tenants (name) VALUES ('empty') ON CONFLICT DO NOTHING;
INSERT INTO groups (tenant_id, name) SELECT tenant_id, 'doomed' FROM tenants WHERE name = 'esa' ON CONFLICT DO NOTHING;
INSERT INTO group_members SELECT group_id, 'a@example.org' FROM groups WHERE name = 'doomed' ON CONFLICT DO NOTHING;
INSERT INTO access_rights (dataset_id, group_id)
    SELECT dataset_id, group_id FROM datasets, groups WHERE collection_id = 'restricted' AND name = 'doomed'
    ON CONFLICT DO NOTHING;
INSERT INTO licences (tenant_id, name, url) SELECT tenant_id, 'doomed', 'https://example.org' FROM tenants
    WHERE name = 'esa' ON CONFLICT DO NOTHING;
INSERT INTO roles (tenant_id, name, parent) SELECT tenant_id, 'doomed', 'PUBLIC' FROM tenants WHERE name = 'esa'
    ON CONFLICT DO NOTHING;
INSERT INTO quota_limits (tenant_id, subject, name, metric, period, value)
    SELECT tenant_id, 'group', 'doomed', 'downloads', 'day', 3 FROM tenants WHERE name = 'esa';
INSERT INTO quota_limits (tenant_id, subject, name, metric, period, value)
    SELECT tenant_id, 'user', '{SCIENTIST.email}', 'downloads', 'total', 50 FROM tenants WHERE name = 'esa';
INSERT INTO api_keys (key_id, tenant_id, secret_sha256, label, subject, email, role, created_by)
    SELECT '{KEY}', tenant_id, '\\x{"00" * 32}', 'doomed', 'scientist', '{SCIENTIST.email}', 'PUBLIC', 'x' FROM tenants
    WHERE name = 'esa' ON CONFLICT (key_id) DO UPDATE SET revoked_at = NULL;
INSERT INTO link_keys (key_id, tenant_id, email) SELECT '{LINK_KEY}', tenant_id, '{SCIENTIST.email}' FROM tenants
    WHERE name = 'esa' ON CONFLICT (key_id) DO UPDATE SET revoked_at = NULL;
DELETE FROM baskets;
INSERT INTO baskets (basket_id, tenant_id, owner) OVERRIDING SYSTEM VALUE
    SELECT 71001, tenant_id, '{SCIENTIST.email}' FROM tenants WHERE name = 'esa';
INSERT INTO basket_datasets (selection_id, basket_id, dataset_id, query, objects_count, files_count, files_size,
                             metered_count, metered_size)
    OVERRIDING SYSTEM VALUE
    SELECT 71001, 71001, dataset_id, '(creationDate:[* TO {SELECTED}])', 1, 1, 7, 1, 7 FROM datasets
    WHERE collection_id = 'restricted';
INSERT INTO basket_items (selection_id, selected_at, query, objects_count, files_count, files_size, metered_count,
                          metered_size)
    SELECT 71001, '{SELECTED}', 'creationDate:[* TO {SELECTED}]', 1, 1, 7, 1, 7;
DELETE FROM orders;
DELETE FROM order_files;
INSERT INTO orders (order_id, tenant_id, owner, owner_subject, owner_role, owner_groups, label, status, expires_at,
                    files_count, files_available, suborders_waiting)
    OVERRIDING SYSTEM VALUE
    SELECT made.order_id, tenant_id, '{SCIENTIST.email}', 'scientist', 'REGISTERED_USER', '{{science}}', made.status,
           made.status, now() + interval '1 day', 1, 1, 1
    FROM tenants,
         (VALUES (71001, 'RUNNING'), (71002, 'PAUSED'), (71003, 'DONE'), (71004, 'FAILED')) made(order_id, status)
    WHERE name = 'esa';
INSERT INTO order_tasks (task_id, order_id, dataset, label, query, data_types, files_count, first_file)
    OVERRIDING SYSTEM VALUE
    SELECT order_id, order_id, urn, 'label', '', '{{}}', 1, (order_id << 24) + 1 FROM orders, datasets
    WHERE collection_id = 'restricted';
INSERT INTO suborders (suborder_id, order_id, number, task_id, tenant_id, owner, state, first_file, files_count,
                       files_size, files_pending, files_available)
    OVERRIDING SYSTEM VALUE
    SELECT order_id, order_id, 1, order_id, tenant_id, owner, 'ENDED', (order_id << 24) + 1, 1, 7, 0, 1 FROM orders;
INSERT INTO order_files (order_file_id, suborder, file_id, state, size)
    SELECT (order_id << 24) + 1, 1, (SELECT min(file_id) FROM files), 'AVAILABLE', 7 FROM orders;
DELETE FROM restores;
INSERT INTO restores (restore_id, tenant_id, file_id, copy_id, storage, location, hours, state, ended_at)
    OVERRIDING SYSTEM VALUE
    SELECT made.restore_id, tenant_id, (SELECT min(file_id) FROM files), 1, 'tape', 'a', 24, made.state, made.ended_at
    FROM tenants,
         (VALUES (71001, 'QUEUED', NULL), (71003, 'CANCELED', now())) made(restore_id, state, ended_at)
    WHERE name = 'esa';
INSERT INTO restore_wishes (restore_id, tenant_id, email) SELECT restore_id, tenant_id, '{SCIENTIST.email}'
    FROM restores;
"""
"""What the routes look for is there, in the tenant ``esa`` alone."""

PRESENT = {
    "user_email": SCIENTIST.email or "",
    "email": "a@example.org",
    "group": "doomed",
    "licence": "doomed",
    "role": "doomed",
    "tenant": "esa",
}
"""What `RESTORE` makes, by the names of parameters."""


@dataclasses.dataclass(frozen=True)
class Row:
    method: str
    path: str
    statuses: Mapping[str, int]

    @property
    def names(self) -> list[str]:
        """Of what is named in the path or the body."""
        return re.findall(r"\{(\w+)\}", f"{self.path}{BODIES.get((self.method, self.path), '')}")

    def own(self, *, missing: bool = False) -> dict[str, str]:
        """Parts whose names stand for another thing on each route: those that are there, or none that ever was."""
        if self.path.removeprefix("/tenants/{tenant}") == "/collections/{collectionId}/items/{itemId}":
            return {"itemId": "zz" if missing else "doomed"}
        if self.path.startswith("/links/"):
            return {"id": f"{'z' * 12}-{'z' * 12}" if missing else f"{LINK_KEY}-{'x' * 12}"}
        if self.path.startswith("/restores"):
            ended = "71003" if self.path.endswith("/events") else "71001"
            return {"restoreId": "79999" if missing else ended}
        order = 79999 if missing else self._order
        return {
            **dict.fromkeys(("orderId", "datasetTaskId", "filesTaskId"), str(order)),
            "datasetSelectionId": "79999" if missing else "71001",
            "itemsSelectionDate": "2023-01-01T00:00:00.000Z" if missing else SELECTED,
            "dataFileId": str((order << 24) + 1),
            "id": "z" * 12 if missing else KEY,
            "name": "empty" if "/tenants/" in self.path else "maxQuota",
        }

    @property
    def _order(self) -> int:
        """An order in the status that the route asks for."""
        for part, order in (("/pause/", 71001), ("/resume/", 71002), ("/retry", 71004)):
            if part in self.path:
                return order
        return 71003


def rows() -> list[Row]:
    header, *lines = Path(__file__).with_name("matrix.txt").read_text(encoding="ascii").splitlines()
    assert header.split() == list(CALLERS)
    found = []
    for line in lines:
        method, path, *statuses = line.split()
        found.append(Row(method, path, dict(zip(CALLERS, map(int, statuses), strict=True))))
    return found


def filled(value: object, parts: Mapping[str, str]) -> object:
    """A body with its parts in it."""
    if isinstance(value, dict):
        return {name: filled(one, parts) for name, one in value.items()}
    if isinstance(value, list):
        return [filled(one, parts) for one in value]
    if isinstance(value, str) and value.startswith("{"):
        return parts[value.strip("{}")]
    return value
