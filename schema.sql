-- Schema of the download gateway (PostgreSQL 15 or later).
--
-- Idempotent: running the whole file again changes nothing. Versioned: the last statement records the version that
-- this file brings a database to, and the gateway refuses to serve from a database with another version.
-- Names are the field's: a dataset is a STAC Collection, a product is a STAC Item (REGARDS: a feature or AIP),
-- a file is a STAC Asset, a copy is a file at one storage location.

CREATE TABLE IF NOT EXISTS schema_version (
    version     integer PRIMARY KEY,
    applied_at  timestamptz NOT NULL DEFAULT now()
);

-- Whoever shares this gateway with others: REGARDS' project. Nothing is visible across tenants.
CREATE TABLE IF NOT EXISTS tenants (
    tenant_id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE CHECK (name <> ''),
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- Terms that must be accepted before private files of a dataset are delivered. A new version asks everyone again.
CREATE TABLE IF NOT EXISTS licences (
    licence_id  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id   integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name        text NOT NULL,
    version     integer NOT NULL DEFAULT 1 CHECK (version > 0),
    url         text NOT NULL,
    UNIQUE (tenant_id, name)
);

ALTER TABLE licences
    ADD COLUMN IF NOT EXISTS title text,
    ADD COLUMN IF NOT EXISTS is_public boolean NOT NULL DEFAULT false;  -- shown and linked, but never in the way
-- Of the datasets of a tenant that name none. To delete it is refused: nothing would be in the way any more.
ALTER TABLE tenants ADD COLUMN IF NOT EXISTS licence_id integer REFERENCES licences;

-- Who accepted which version, when and from where; kept for ever, as a proof: with it its licence and its tenant.
CREATE TABLE IF NOT EXISTS licence_acceptances (
    licence_id  integer NOT NULL REFERENCES licences,
    email       text NOT NULL,
    version     integer NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (licence_id, email, version)
);
ALTER TABLE licence_acceptances
    ADD COLUMN IF NOT EXISTS address text,     -- IP address of the client
    ADD COLUMN IF NOT EXISTS credential text;  -- by what the caller was known
DO $$
BEGIN
    -- Acceptances once went with the licence, and tenants were left without one.
    IF EXISTS (SELECT FROM pg_constraint WHERE conname = 'licence_acceptances_licence_id_fkey'
               AND conrelid = 'licence_acceptances'::regclass AND confdeltype = 'c') THEN
        ALTER TABLE licence_acceptances DROP CONSTRAINT licence_acceptances_licence_id_fkey,
            ADD CONSTRAINT licence_acceptances_licence_id_fkey FOREIGN KEY (licence_id) REFERENCES licences;
    END IF;
    IF EXISTS (SELECT FROM pg_constraint WHERE conname = 'tenants_licence_id_fkey'
               AND conrelid = 'tenants'::regclass AND confdeltype = 'n') THEN
        ALTER TABLE tenants DROP CONSTRAINT tenants_licence_id_fkey,
            ADD CONSTRAINT tenants_licence_id_fkey FOREIGN KEY (licence_id) REFERENCES licences;
    END IF;
END $$;

CREATE TABLE IF NOT EXISTS datasets (
    dataset_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id      integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    collection_id  text NOT NULL,              -- id of the STAC Collection
    urn            text NOT NULL,              -- URN:AIP:DATASET:…, REGARDS' name of the same thing
    title          text,
    body           jsonb NOT NULL,             -- the STAC Collection as it came
    licence_id     integer REFERENCES licences,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, collection_id),
    UNIQUE (tenant_id, urn)
);
CREATE INDEX IF NOT EXISTS datasets_by_licence ON datasets (licence_id);

CREATE TABLE IF NOT EXISTS products (
    product_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    dataset_id      bigint NOT NULL REFERENCES datasets ON DELETE CASCADE,
    urn             text NOT NULL,             -- URN:FEATURE:DATA:{tenant}:{uuid}:V{n}: {aip_id} of a download
    provider_id     text NOT NULL,             -- id of the STAC Item, providerId of REGARDS
    properties      jsonb NOT NULL,
    geometry        jsonb,                     -- GeoJSON geometry
    west            double precision,          -- bbox in degrees, third dimension dropped; west > east crosses 180°
    south           double precision,
    east            double precision,
    north           double precision,
    start_datetime  timestamptz,               -- equals end_datetime where the item has a plain datetime
    end_datetime    timestamptz,
    body            jsonb NOT NULL,            -- the entity as it came, without properties, geometry and assets
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, urn),
    UNIQUE (dataset_id, provider_id)
);

-- What quality filters of access rights look at (REGARDS' qualityFilter); NULL: not rated.
ALTER TABLE products
    ADD COLUMN IF NOT EXISTS quality_score double precision CHECK (quality_score <> 'NaN'),
    ADD COLUMN IF NOT EXISTS quality_level text
        CHECK (quality_level IN ('ACCEPTED', 'ACCEPTED_WITH_WARNINGS', 'REJECTED'));

CREATE TABLE IF NOT EXISTS files (
    file_id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id          bigint NOT NULL REFERENCES products ON DELETE CASCADE,
    asset_key           text NOT NULL,         -- key in the STAC Item's assets
    data_type           text NOT NULL CHECK (data_type IN ('RAWDATA', 'QUICKLOOK_SD', 'QUICKLOOK_MD', 'QUICKLOOK_HD',
                            'DOCUMENT', 'THUMBNAIL', 'OTHER', 'AIP', 'DESCRIPTION')),
    checksum            text,                  -- hexadecimal, as the catalogue writes it; compared without case
    checksum_algorithm  text CHECK (checksum_algorithm IN ('MD5', 'SHA-1', 'SHA-256', 'SHA-384', 'SHA-512')),
    size                bigint CHECK (size >= 0),                     -- bytes
    crc32               bigint CHECK (crc32 BETWEEN 0 AND 4294967295),
    mime_type           text,
    file_name           text NOT NULL,         -- what the user's copy is called
    reference           boolean NOT NULL DEFAULT false, -- held by somebody else: only its URL is known
    body                jsonb NOT NULL,        -- the STAC Asset or REGARDS file as it came
    UNIQUE (product_id, asset_key),
    CHECK ((checksum IS NULL) = (checksum_algorithm IS NULL))
);
CREATE INDEX IF NOT EXISTS files_by_checksum ON files (product_id, lower(checksum));
CREATE INDEX IF NOT EXISTS files_by_content ON files (lower(checksum)) WHERE checksum IS NOT NULL;

-- A file at one storage location. size, modified and version are what the storage said when the copy was ingested:
-- a copy that differs from them later is not the file the catalogue describes, and is not served as such.
CREATE TABLE IF NOT EXISTS copies (
    copy_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    file_id    bigint NOT NULL REFERENCES files ON DELETE CASCADE,
    storage    text NOT NULL,                  -- name of a [[storage]] of the configuration
    location   text NOT NULL,                  -- local: path below the storage's root; else the URI
    state      text NOT NULL DEFAULT 'ONLINE' CHECK (state IN ('ONLINE', 'NEARLINE', 'OFFLINE', 'LOST')),
    size       bigint CHECK (size >= 0),       -- bytes
    modified   timestamptz,                    -- Last-Modified of these bytes
    version    text,                           -- the storage's own tag of these bytes (local: mtime, size and inode)
    verified_version text,                     -- version whose bytes were read and have the file's checksum
    broken_version   text,                     -- version whose bytes were read and have not: never served
    UNIQUE (file_id, storage, location)
);
ALTER TABLE copies ADD COLUMN IF NOT EXISTS verified_version text, ADD COLUMN IF NOT EXISTS broken_version text;

-- REGARDS' access groups. A public group reaches everyone, anonymous callers included.
CREATE TABLE IF NOT EXISTS groups (
    group_id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id  integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name       text NOT NULL CHECK (name <> ''),
    is_public  boolean NOT NULL DEFAULT false,
    UNIQUE (tenant_id, name)
);

CREATE TABLE IF NOT EXISTS group_members (
    group_id   integer NOT NULL REFERENCES groups ON DELETE CASCADE,
    email      text NOT NULL,
    PRIMARY KEY (group_id, email)
);
CREATE INDEX IF NOT EXISTS group_members_by_email ON group_members (email, group_id);

-- What a group may do with a dataset; no row, no access (REGARDS: AccessLevel and FileAccessLevel).
CREATE TABLE IF NOT EXISTS access_rights (
    dataset_id      bigint NOT NULL REFERENCES datasets ON DELETE CASCADE,
    group_id        integer NOT NULL REFERENCES groups ON DELETE CASCADE,
    metadata_level  text NOT NULL DEFAULT 'NO_ACCESS'
                    CHECK (metadata_level IN ('NO_ACCESS', 'RESTRICTED_ACCESS', 'CUSTOM_ACCESS', 'FULL_ACCESS')),
    file_level      text NOT NULL DEFAULT 'NO_ACCESS'
                    CHECK (file_level IN ('NO_ACCESS', 'INHERITED_ACCESS', 'CUSTOM_ACCESS')),
    PRIMARY KEY (dataset_id, group_id)
);
ALTER TABLE access_rights
    ADD COLUMN IF NOT EXISTS quality_min double precision CHECK (quality_min <> 'NaN'),  -- NULL: whatever the product
    ADD COLUMN IF NOT EXISTS quality_max double precision CHECK (quality_max <> 'NaN'),  -- is rated, or if it is not
    ADD COLUMN IF NOT EXISTS quality_levels text[]
        CHECK (cardinality(quality_levels) > 0
               AND quality_levels <@ ARRAY['ACCEPTED', 'ACCEPTED_WITH_WARNINGS', 'REJECTED']),
    ADD COLUMN IF NOT EXISTS policy text,                      -- name of the policy plug-in that CUSTOM_ACCESS asks
    ADD COLUMN IF NOT EXISTS policy_options jsonb CHECK (jsonb_typeof(policy_options) = 'object');

-- Roles of a tenant beside REGARDS' own. Each may what its parent may.
CREATE TABLE IF NOT EXISTS roles (
    tenant_id  integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name       text NOT NULL CHECK (name <> '' AND name NOT IN
                   ('PUBLIC', 'REGISTERED_USER', 'EXPLOIT', 'ADMIN', 'PROJECT_ADMIN', 'INSTANCE_ADMIN')),
    parent     text NOT NULL CHECK (parent IN ('PUBLIC', 'REGISTERED_USER', 'EXPLOIT', 'ADMIN')),
    PRIMARY KEY (tenant_id, name)
);

-- What administrators changed; never changed itself.
CREATE TABLE IF NOT EXISTS changes (
    change_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id   integer REFERENCES tenants ON DELETE SET NULL,  -- NULL: of no tenant, or of one that is gone
    changed_at  timestamptz NOT NULL DEFAULT now(),
    actor       text NOT NULL,                 -- email of the administrator; 'command line'
    action      text NOT NULL,                 -- like 'group.create', 'right.put', 'key.revoke'
    object      text NOT NULL,                 -- what was changed, as its administrators name it
    detail      jsonb NOT NULL,                -- what it became; no secrets
    address     text,
    request_id  text
);
ALTER TABLE changes ADD COLUMN IF NOT EXISTS key_id text;  -- of the API key, if he showed one
CREATE INDEX IF NOT EXISTS changes_by_time ON changes (tenant_id, changed_at);

-- Limits on metered downloads, each a rule of its own: who (subject, name) may have how much (value: -1 unlimited,
-- 0 forbidden) of what (metric) in which time (period). Not shared, each caller whom the rule concerns is counted by
-- himself (anonymous callers by network): his own rule applies, else the tightest of his groups and role, else the
-- tenant's, which is the default of users. Shared, one counter serves all of them, and all rules apply. Without any rule
-- users are unlimited; anonymous callers are refused unless a rule is theirs, as in REGARDS. REGARDS' maxQuota is
-- (downloads, total), its rateLimit (concurrent, now).
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('quota_limits') AND attname = 'kind') THEN
        CREATE TABLE quota_limits_of_version_2 AS TABLE quota_limits;
        DROP TABLE quota_limits;
    END IF;
END $$;
CREATE TABLE IF NOT EXISTS quota_limits (
    tenant_id  integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    subject    text NOT NULL CHECK (subject IN ('tenant', 'group', 'role', 'user', 'anonymous')),
    name       text NOT NULL DEFAULT '',       -- of the group or role; email of the user
    shared     boolean NOT NULL DEFAULT false,
    metric     text NOT NULL CHECK (metric IN ('downloads', 'bytes', 'concurrent', 'rate')),
    period     text NOT NULL,                  -- day and month are of the calendar in UTC; '3600s' is a rolling hour
    value      bigint NOT NULL CHECK (value BETWEEN -1 AND 9007199254740992),  -- downloads, bytes, connections, starts
    burst      integer NOT NULL DEFAULT 1 CHECK (burst >= 1),                  -- starts that may come at once
    slow_rate  bigint CHECK (slow_rate BETWEEN 1 AND 9007199254740992),        -- bytes per second instead of a refusal
    fail       text NOT NULL DEFAULT 'closed' CHECK (fail IN ('closed', 'capped')),  -- while Redis is out of reach
    PRIMARY KEY (tenant_id, subject, name, shared, metric, period),
    CHECK ((name = '') = (subject IN ('tenant', 'anonymous'))),
    CHECK (NOT (shared AND subject = 'user')),
    CHECK (CASE metric
           WHEN 'concurrent' THEN period = 'now'
           WHEN 'rate' THEN period ~ '^[1-9][0-9]{0,7}s$'
           ELSE period IN ('total', 'day', 'month') OR period ~ '^[1-9][0-9]{0,7}s$' END),
    CHECK (burst = 1 OR metric = 'rate'),
    CHECK (slow_rate IS NULL OR metric IN ('downloads', 'bytes')),
    CHECK (fail = 'closed' OR metric IN ('concurrent', 'rate'))
);
DO $$
BEGIN
    IF to_regclass('quota_limits_of_version_2') IS NOT NULL THEN
        -- What a default did not limit needs no rule. A user's own -1 lifts the default, and one of anonymous callers
        -- lets them in.
        INSERT INTO quota_limits (tenant_id, subject, name, shared, metric, period, value)
        SELECT old.tenant_id, CASE old.kind WHEN 'default' THEN 'tenant' ELSE old.kind END, old.email,
               old.kind = 'anonymous', new.metric, 'total', least(new.value, 9007199254740992)
        FROM quota_limits_of_version_2 old
        CROSS JOIN LATERAL (VALUES ('downloads', old.max_downloads), ('bytes', old.max_bytes)) AS new(metric, value)
        WHERE old.kind <> 'default' OR new.value >= 0;
        DROP TABLE quota_limits_of_version_2;
    END IF;
END $$;

-- Quotas: what was charged to whom. Redis counts, and appends each change to a stream; from there it comes here.

-- An epoch is a time in which one Redis counted for a tenant without losing anything. A new one begins, closed, when
-- that is in doubt; it is opened when every gateway process that lives has told what it knows of the last one.
CREATE TABLE IF NOT EXISTS quota_epochs (
    tenant_id  integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    epoch      integer NOT NULL CHECK (epoch > 0),
    opened     boolean NOT NULL DEFAULT false,
    position   bigint NOT NULL DEFAULT 0,      -- in the stream: all events up to here are in the ledger
    clock      bigint NOT NULL DEFAULT 0,      -- latest time of an event, microseconds since 1970
    PRIMARY KEY (tenant_id, epoch)
);

-- Gateway processes that were seen lately, and the epochs for which they have told what they know.
CREATE TABLE IF NOT EXISTS quota_processes (
    process    text PRIMARY KEY,
    seen       timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS quota_replays (
    tenant_id  integer NOT NULL,
    epoch      integer NOT NULL,
    process    text NOT NULL REFERENCES quota_processes ON DELETE CASCADE,
    PRIMARY KEY (tenant_id, epoch, process),
    FOREIGN KEY (tenant_id, epoch) REFERENCES quota_epochs ON DELETE CASCADE
);

-- The ledger: every change, once. A grant charges what was promised, its end corrects that to what was sent, a release
-- gives a download back of which nothing was delivered.
CREATE TABLE IF NOT EXISTS quota_ledger (
    tenant_id    integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    reservation  text NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('grant', 'end', 'release')),
    accounts     text[] NOT NULL,              -- whom it is charged to: user:…, network:…, tenant, group:…, role:…
    content      text NOT NULL,                -- the checksum of the file, or its id
    downloads    integer NOT NULL,
    bytes        bigint NOT NULL,
    began_at     timestamptz NOT NULL,         -- of the download, by the clock of Redis: in which day and month it counts
    windows      integer[] NOT NULL,           -- rolling windows in which it counts, seconds
    recorded_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, reservation, kind)
);
-- Of one caller, lately: the first account is his own.
CREATE INDEX IF NOT EXISTS quota_ledger_by_caller ON quota_ledger (tenant_id, (accounts[1]), recorded_at);

-- Sums of the ledger, so that nothing ever has to be summed over history.
CREATE TABLE IF NOT EXISTS quota_usage (
    tenant_id    integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    account      text NOT NULL,
    period       text NOT NULL,                -- total, 2026-11-21, 2026-11, or r3600:475 (window in seconds: bucket)
    downloads    bigint NOT NULL,
    bytes        bigint NOT NULL,
    PRIMARY KEY (tenant_id, account, period)
);

-- What processes are told of at once, on the channel "gateway": {"topic", "tenant" (its name; null if it is gone), "id"}.
-- A trigger names the topic and the column of the id. What a row holds besides is not told.
CREATE OR REPLACE FUNCTION notify_gateway() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed jsonb := to_jsonb(CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END);
BEGIN
    PERFORM pg_notify('gateway', json_build_object(
        'topic', TG_ARGV[0],
        'tenant', (SELECT name FROM tenants WHERE tenant_id = (changed ->> 'tenant_id')::integer),
        'id', changed ->> TG_ARGV[1]
    )::text);
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER tenants_changed AFTER UPDATE OF name OR DELETE ON tenants
    FOR EACH ROW EXECUTE FUNCTION notify_gateway('tenants', 'tenant_id');

-- API keys: whoever shows one is taken for the user it was made for, within its scopes. Of the key gdk_<key_id>_<secret>
-- only a hash of the secret is kept; as that is 256 random bits, a slow hash would be no harder to reverse.
CREATE TABLE IF NOT EXISTS api_keys (
    key_id         text PRIMARY KEY CHECK (key_id ~ '^[0-9A-Za-z]{12}$'),
    tenant_id      integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    secret_sha256  bytea NOT NULL CHECK (length(secret_sha256) = 32),
    label          text NOT NULL CHECK (label <> ''),
    subject        text NOT NULL,
    email          text NOT NULL CHECK (email <> ''),
    role           text NOT NULL CHECK (role <> ''),
    groups         text[] NOT NULL DEFAULT '{}',  -- beside the memberships in group_members, as in a token
    scopes         text[] NOT NULL DEFAULT '{download}' CHECK (scopes <@ '{download,order,quota,admin}'),
    networks       cidr[],                     -- that it may be shown from; NULL: any
    created_at     timestamptz NOT NULL DEFAULT now(),
    created_by     text NOT NULL,
    expires_at     timestamptz,                -- NULL: never
    last_used_at   timestamptz,                -- to about two minutes
    revoked_at     timestamptz
);
CREATE INDEX IF NOT EXISTS api_keys_by_email ON api_keys (tenant_id, email);
CREATE OR REPLACE TRIGGER api_keys_changed
    AFTER INSERT OR DELETE OR UPDATE OF tenant_id, secret_sha256, subject, email, role, groups, scopes, networks,
        expires_at, revoked_at ON api_keys
    FOR EACH ROW EXECUTE FUNCTION notify_gateway('api_keys', 'key_id');

-- Signed download links: what they are signed with is derived from the secret of the configuration and the key_id. Each
-- user has a key of his own, and so has each of his API keys that makes links; it is made with the first. When it is
-- revoked all links that it signed are, and the next link has a new one. Links that an API key made end with that.
CREATE TABLE IF NOT EXISTS link_keys (
    key_id      text PRIMARY KEY CHECK (key_id ~ '^[0-9A-Za-z]{12}$'),
    tenant_id   integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    email       text NOT NULL CHECK (email <> ''),
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz
);
-- NULL: of links that the user made in person.
ALTER TABLE link_keys ADD COLUMN IF NOT EXISTS api_key text REFERENCES api_keys ON DELETE CASCADE;
DROP INDEX IF EXISTS link_keys_in_use;  -- one for each user, whatever he made it with
CREATE UNIQUE INDEX IF NOT EXISTS link_keys_of_maker ON link_keys (tenant_id, email, api_key) NULLS NOT DISTINCT
    WHERE revoked_at IS NULL;
CREATE INDEX IF NOT EXISTS link_keys_by_api_key ON link_keys (api_key) WHERE api_key IS NOT NULL;
CREATE OR REPLACE TRIGGER link_keys_changed AFTER DELETE OR UPDATE ON link_keys
    FOR EACH ROW EXECUTE FUNCTION notify_gateway('link_keys', 'key_id');

-- Single links that were revoked, until they would have ended anyway.
CREATE TABLE IF NOT EXISTS revoked_links (
    link_id     text PRIMARY KEY,              -- <key_id>-<…>
    tenant_id   integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    revoked_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS revoked_links_by_time ON revoked_links (revoked_at);
CREATE OR REPLACE TRIGGER revoked_links_changed AFTER INSERT ON revoked_links
    FOR EACH ROW EXECUTE FUNCTION notify_gateway('revoked_links', 'link_id');

-- The record of downloads: one row for each download and each refusal on their routes, written in batches after the
-- answer. Partitions are months in UTC (download_log_2026_11 is one); the gateway makes them ahead and drops old ones.
CREATE TABLE IF NOT EXISTS download_log (
    at           timestamptz NOT NULL,         -- when the answer ended
    record       bigint NOT NULL,              -- tells records of the same moment apart
    tenant       text NOT NULL,                -- name; empty: nobody knows of which (no credential that holds)
    subject      text,                         -- login
    email        text,                         -- NULL: anonymous, or unknown
    role         text,
    credential   text,                         -- by what the caller was known
    address      text,                         -- as [audit] addresses says
    method       text NOT NULL,
    route        text NOT NULL,                -- template of the path
    path         text NOT NULL,                -- as it was asked, percent-encoded, without the query
    product      text,                         -- URN; before it is found: as it was asked
    file         text,                         -- checksum or key of the asset, as it was asked
    file_id      bigint,                       -- NULL: it was not found, or is not for the caller
    verdict      text NOT NULL CHECK (verdict IN ('whole', 'cut', 'redirected', 'offloaded', 'refused', 'failed')),
    reason       text,                         -- code of the error, or what cut the transfer
    status       integer,                      -- NULL: the gateway ended before there was an answer
    promised     bigint,                       -- bytes
    sent         bigint,                       -- bytes; of what is handed over all count as sent
    storage      text,                         -- of the copy
    delivery     text,                         -- stream, redirect or accel
    duration_ms  double precision NOT NULL,
    request_id   text,
    user_agent   text
) PARTITION BY RANGE (at);
ALTER TABLE download_log ADD COLUMN IF NOT EXISTS credential_id text;  -- of the API key or link
CREATE INDEX IF NOT EXISTS download_log_by_time ON download_log (tenant, at);
CREATE INDEX IF NOT EXISTS download_log_by_email ON download_log (tenant, email, at);

-- Sessions of browsers. Of the cookie only its SHA-256 is kept.
CREATE TABLE IF NOT EXISTS sessions (
    hash        text PRIMARY KEY,              -- hexadecimal
    tenant_id   integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    subject     text NOT NULL,
    email       text NOT NULL,
    role        text NOT NULL,
    groups      text[] NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    address     text                           -- where the user logged in from
);
CREATE INDEX IF NOT EXISTS sessions_by_end ON sessions (expires_at);
CREATE OR REPLACE TRIGGER sessions_changed AFTER DELETE OR UPDATE ON sessions
    FOR EACH ROW EXECUTE FUNCTION notify_gateway('sessions', 'hash');

-- What every decision on a download looks for: the public groups of a tenant.
CREATE INDEX IF NOT EXISTS groups_public ON groups (tenant_id, group_id) WHERE is_public;

-- Searches of the catalogue. Items are listed in the order of (sorted_at, product_id), of which a page is a range;
-- those without a datetime count as the oldest.
ALTER TABLE products ADD COLUMN IF NOT EXISTS
    sorted_at timestamptz NOT NULL GENERATED ALWAYS AS (coalesce(start_datetime, '-infinity')) STORED;
CREATE INDEX IF NOT EXISTS products_by_time ON products (dataset_id, sorted_at, product_id) INCLUDE (end_datetime);
CREATE INDEX IF NOT EXISTS products_of_tenant_by_time
    ON products (tenant_id, sorted_at, product_id) INCLUDE (dataset_id, end_datetime);
CREATE INDEX IF NOT EXISTS products_by_item ON products (tenant_id, provider_id text_pattern_ops);
-- Where and when: box is a built-in type, and GiST knows numbers only as ranges. An item that touches 180° goes all
-- around the Earth here; the columns tell then.
CREATE INDEX IF NOT EXISTS products_by_place ON products USING gist (
    int8range(dataset_id, dataset_id, '[]'),
    box(point(CASE WHEN west <= east AND west > -180 AND east < 180 THEN west ELSE -180 END, south),
        point(CASE WHEN west <= east AND west > -180 AND east < 180 THEN east ELSE 180 END, north)),
    (CASE WHEN start_datetime <= end_datetime THEN tstzrange(start_datetime, end_datetime, '[]') END)
);
-- What lasts so long that its start does not tell when it was.
CREATE INDEX IF NOT EXISTS products_long ON products USING gist (
    int8range(dataset_id, dataset_id, '[]'),
    (CASE WHEN start_datetime <= end_datetime THEN tstzrange(start_datetime, end_datetime, '[]') END)
) WHERE end_datetime - start_datetime > interval '24 hours';
-- What a caller may see anything of.
CREATE INDEX IF NOT EXISTS datasets_of_tenant ON datasets (tenant_id, dataset_id);
CREATE INDEX IF NOT EXISTS access_rights_by_group ON access_rights (group_id, dataset_id);

-- What tokens of pages are sealed with: random, and the same in all processes.
CREATE TABLE IF NOT EXISTS page_secret (
    secret  bytea NOT NULL CHECK (length(secret) = 32)
);
INSERT INTO page_secret
SELECT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) WHERE NOT EXISTS (SELECT FROM page_secret);

-- Loads from other STAC APIs that have not come to their end: where each goes on. Written in the transaction of each page.
CREATE TABLE IF NOT EXISTS loads (
    tenant_id   integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    source      text NOT NULL,                 -- root URL
    wanted      text NOT NULL,                 -- what of it is loaded: JSON, always written alike
    collection  text NOT NULL,                 -- that is being loaded; those before it (by code points) are done
    request     jsonb,                         -- what its next page is asked with; NULL: it is done, too
    pages       bigint NOT NULL,               -- written so far
    started_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, source, wanted)
);

-- Orders. What an owner may is looked at anew with each download; what he was known by is kept for the links of an order,
-- by which he comes without a credential.
CREATE TABLE IF NOT EXISTS orders (
    order_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY CHECK (order_id < 536870912),
    tenant_id         integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    owner             text NOT NULL CHECK (owner <> ''),  -- email
    owner_subject     text NOT NULL,
    owner_role        text NOT NULL,
    owner_groups      text[] NOT NULL,
    label             text NOT NULL CHECK (length(label) BETWEEN 1 AND 50),
    on_success_url    text,                    -- where the user goes on in his portal
    correlation_id    text,                    -- what a program calls it that ordered in one call
    status            text NOT NULL CHECK (status IN ('PENDING', 'RUNNING', 'PAUSED', 'DONE', 'DONE_WITH_WARNING', 'FAILED',
                          'EXPIRED', 'DELETED')),
    status_at         timestamptz NOT NULL DEFAULT now(),
    created_at        timestamptz NOT NULL DEFAULT now(),
    expires_at        timestamptz NOT NULL,
    token_generation  integer NOT NULL DEFAULT 0,  -- tokens of others are void
    has_files         boolean NOT NULL DEFAULT true,  -- whether rows of order_files are left to be cleaned up
    -- Counted as it happens, by the trigger below.
    files_count           integer NOT NULL DEFAULT 0,
    files_pending         integer NOT NULL DEFAULT 0 CHECK (files_pending >= 0),
    files_available       integer NOT NULL DEFAULT 0 CHECK (files_available >= 0),
    files_downloaded      integer NOT NULL DEFAULT 0 CHECK (files_downloaded >= 0),
    files_download_error  integer NOT NULL DEFAULT 0 CHECK (files_download_error >= 0),
    files_error           integer NOT NULL DEFAULT 0 CHECK (files_error >= 0),
    files_size            bigint NOT NULL DEFAULT 0,   -- bytes; files of unknown size count none
    pending_size          bigint NOT NULL DEFAULT 0 CHECK (pending_size >= 0),
    suborders_waiting     integer NOT NULL DEFAULT 0 CHECK (suborders_waiting >= 0),  -- for the user to download
    percent               integer NOT NULL GENERATED ALWAYS AS (CASE
                              WHEN files_pending = 0 THEN 100
                              WHEN files_size > 0 THEN least(99, trunc((files_size - pending_size) * 100.0 / files_size))
                              ELSE (files_count - files_pending) * 100 / files_count END) STORED,
    waiting_for_user      boolean NOT NULL GENERATED ALWAYS AS (suborders_waiting > 0) STORED,
    CHECK (files_pending + files_available + files_downloaded + files_download_error + files_error <= files_count)
);
CREATE UNIQUE INDEX IF NOT EXISTS orders_by_label ON orders (tenant_id, owner, label) WHERE status <> 'DELETED';
CREATE INDEX IF NOT EXISTS orders_by_owner ON orders (tenant_id, owner, order_id);
CREATE INDEX IF NOT EXISTS orders_by_status ON orders (tenant_id, status, order_id);
CREATE INDEX IF NOT EXISTS orders_by_time ON orders (tenant_id, created_at);
CREATE INDEX IF NOT EXISTS orders_waiting ON orders (tenant_id, order_id) WHERE waiting_for_user;
CREATE INDEX IF NOT EXISTS orders_by_end ON orders (expires_at)
    WHERE status IN ('PENDING', 'RUNNING', 'PAUSED') OR (status IN ('DONE', 'DONE_WITH_WARNING') AND files_available > 0);
CREATE INDEX IF NOT EXISTS orders_to_clean ON orders (order_id) WHERE has_files AND status IN ('EXPIRED', 'DELETED');
CREATE INDEX IF NOT EXISTS orders_past ON orders (status_at)
    WHERE status IN ('DONE', 'DONE_WITH_WARNING', 'FAILED', 'EXPIRED', 'DELETED');

-- What was selected of one dataset.
CREATE TABLE IF NOT EXISTS order_tasks (
    task_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id       bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
    dataset        text NOT NULL,              -- URN
    label          text NOT NULL,
    query          text NOT NULL,
    data_types     text[] NOT NULL,            -- empty: all that can be ordered
    name_pattern   text,                       -- regular expression for the whole name; NULL: any
    objects_count  integer NOT NULL DEFAULT 0,
    files_count    integer NOT NULL DEFAULT 0,
    files_size     bigint NOT NULL DEFAULT 0,
    first_file     bigint NOT NULL DEFAULT 0,  -- its files have consecutive ids, from this one on
    UNIQUE (order_id, dataset)
);

-- A part of an order that one worker prepares: files of one task, with consecutive ids.
CREATE TABLE IF NOT EXISTS suborders (
    suborder_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id         bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
    number           integer NOT NULL,
    task_id          bigint NOT NULL,
    tenant_id        integer NOT NULL,
    owner            text NOT NULL,
    state            text NOT NULL CHECK (state IN ('WAITING', 'RUNNING', 'STAGING', 'HELD', 'ENDED')),
    turn             bigint NOT NULL DEFAULT 0,  -- the lowest is prepared next: those of different owners take turns
    lease            uuid,                     -- of the worker that has it in hand
    due_at           timestamptz,              -- RUNNING: when the lease ends; STAGING: when to look again
    first_file       bigint NOT NULL,
    files_count      integer NOT NULL,
    files_size       bigint NOT NULL,
    files_pending    integer NOT NULL CHECK (files_pending >= 0),
    files_available  integer NOT NULL DEFAULT 0 CHECK (files_available >= 0),
    UNIQUE (order_id, number),
    CHECK ((lease IS NOT NULL) = (state = 'RUNNING')),
    CHECK ((due_at IS NOT NULL) = (state IN ('RUNNING', 'STAGING')))
);
CREATE INDEX IF NOT EXISTS suborders_by_turn ON suborders (turn, suborder_id) WHERE state = 'WAITING';
CREATE INDEX IF NOT EXISTS suborders_of_owner ON suborders (tenant_id, owner, turn) WHERE state = 'WAITING';
CREATE INDEX IF NOT EXISTS suborders_of_order ON suborders (order_id, number) WHERE state = 'WAITING';
CREATE INDEX IF NOT EXISTS suborders_by_due ON suborders (due_at) WHERE state IN ('RUNNING', 'STAGING');

-- The files of an order. The upper bits of an id are those of its order, the lower 24 a number from 1 on, so that all of
-- an order, a task or a sub-order is one range of the primary key, and pages of it are, too. No foreign keys: each would
-- be looked up a million times for an order of a million files. With an order its range goes, by a trigger.
CREATE TABLE IF NOT EXISTS order_files (
    order_file_id  bigint PRIMARY KEY,
    suborder       integer NOT NULL,           -- number
    file_id        bigint NOT NULL,            -- of files; it may be gone by now
    state          text NOT NULL CHECK (state IN ('PENDING', 'AVAILABLE', 'DOWNLOADED', 'DOWNLOAD_ERROR', 'ERROR')),
    size           bigint,                     -- bytes
    error          text
) WITH (fillfactor = 70);

-- Archives as they were laid out when somebody first asked for them, so that their rest is the rest of the same bytes.
-- Each caller has his own: what is in one depends on what he may have. One without pieces is a mere note that there was one.
CREATE TABLE IF NOT EXISTS order_archives (
    order_id     bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
    caller       text NOT NULL,                -- email
    tag          text NOT NULL,
    length       bigint NOT NULL,              -- bytes
    created_at   timestamptz NOT NULL,
    answered_at  timestamptz NOT NULL DEFAULT clock_timestamp(),  -- when it was last what a request got without naming it
    begun        boolean NOT NULL DEFAULT false,  -- whether bytes of it were sent, so that somebody may ask for the rest
    PRIMARY KEY (order_id, caller, tag)
);
CREATE TABLE IF NOT EXISTS order_archive_pieces (
    order_id  bigint NOT NULL,
    caller    text NOT NULL,
    tag       text NOT NULL,
    number    integer NOT NULL,
    piece     bytea NOT NULL,                  -- compressed
    PRIMARY KEY (order_id, caller, tag, number),
    FOREIGN KEY (order_id, caller, tag) REFERENCES order_archives ON DELETE CASCADE
);
ALTER TABLE order_archive_pieces ALTER COLUMN piece SET STORAGE EXTERNAL;

CREATE OR REPLACE FUNCTION forget_order_files() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM order_files WHERE order_file_id BETWEEN OLD.order_id << 24 AND ((OLD.order_id + 1) << 24) - 1;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER orders_deleted AFTER DELETE ON orders FOR EACH ROW EXECUTE FUNCTION forget_order_files();

-- Whoever changes states of files has locked their order before: counters then change in one order everywhere. How many
-- sub-orders a change concerns the planner cannot know: it would rather read all there are.
CREATE OR REPLACE FUNCTION count_order_files() RETURNS trigger LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
BEGIN
    WITH delta AS (
        SELECT order_file_id >> 24 AS order_id, suborder,
               coalesce(sum(sign) FILTER (WHERE state = 'PENDING'), 0) AS pending,
               coalesce(sum(sign) FILTER (WHERE state = 'AVAILABLE'), 0) AS available,
               coalesce(sum(sign) FILTER (WHERE state = 'DOWNLOADED'), 0) AS downloaded,
               coalesce(sum(sign) FILTER (WHERE state = 'DOWNLOAD_ERROR'), 0) AS download_error,
               coalesce(sum(sign) FILTER (WHERE state = 'ERROR'), 0) AS error,
               coalesce(sum(sign * size) FILTER (WHERE state = 'PENDING'), 0) AS pending_size
        FROM (
            SELECT order_file_id, suborder, state, size, -1 AS sign FROM before
            UNION ALL SELECT order_file_id, suborder, state, size, 1 FROM after
        ) changed
        GROUP BY 1, 2
    ), counted AS (
        UPDATE suborders s
        SET files_pending = s.files_pending + d.pending, files_available = s.files_available + d.available
        FROM delta d WHERE s.order_id = d.order_id AND s.number = d.suborder
        RETURNING d.*, (s.files_pending = 0 AND s.files_available > 0)::integer
            - (s.files_pending - d.pending = 0 AND s.files_available - d.available > 0)::integer AS waiting
    )
    UPDATE orders o
    SET files_pending = o.files_pending + d.pending, files_available = o.files_available + d.available,
        files_downloaded = o.files_downloaded + d.downloaded, files_error = o.files_error + d.error,
        files_download_error = o.files_download_error + d.download_error,
        pending_size = o.pending_size + d.pending_size, suborders_waiting = o.suborders_waiting + d.waiting
    FROM (
        SELECT order_id, sum(pending) AS pending, sum(available) AS available, sum(downloaded) AS downloaded,
               sum(download_error) AS download_error, sum(error) AS error, sum(pending_size) AS pending_size,
               sum(waiting) AS waiting
        FROM counted GROUP BY order_id
    ) d WHERE o.order_id = d.order_id;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER order_files_changed AFTER UPDATE ON order_files
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION count_order_files();

-- Baskets: what users have selected so far, one of each.
CREATE TABLE IF NOT EXISTS baskets (
    basket_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id  integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    owner      text NOT NULL CHECK (owner <> ''),  -- email
    UNIQUE (tenant_id, owner)
);

-- All selections of one dataset. What several of them find is counted once.
CREATE TABLE IF NOT EXISTS basket_datasets (
    selection_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    basket_id      bigint NOT NULL REFERENCES baskets ON DELETE CASCADE,
    dataset_id     bigint NOT NULL REFERENCES datasets ON DELETE CASCADE,
    query          text NOT NULL,              -- of its selections together
    data_types     text[] NOT NULL DEFAULT '{}',  -- as in order_tasks
    name_pattern   text,
    objects_count  bigint NOT NULL,
    files_count    bigint NOT NULL,
    files_size     bigint NOT NULL,            -- bytes; files of unknown size count none
    metered_count  bigint NOT NULL,            -- files of types that count in quotas
    metered_size   bigint NOT NULL,
    UNIQUE (basket_id, dataset_id)
);
CREATE INDEX IF NOT EXISTS basket_datasets_by_dataset ON basket_datasets (dataset_id);

-- One selection, as far as it concerns a dataset.
CREATE TABLE IF NOT EXISTS basket_items (
    selection_id   bigint NOT NULL REFERENCES basket_datasets ON DELETE CASCADE,
    selected_at    timestamptz NOT NULL,       -- whole milliseconds; products that came later are no part of it
    query          text NOT NULL,
    objects_count  bigint NOT NULL,
    files_count    bigint NOT NULL,
    files_size     bigint NOT NULL,
    metered_count  bigint NOT NULL,
    metered_size   bigint NOT NULL,
    PRIMARY KEY (selection_id, selected_at)
);

-- Who follows an order is woken when it is to be seen that it went on: at most about a hundred times, however many files.
CREATE OR REPLACE TRIGGER orders_went_on AFTER UPDATE ON orders FOR EACH ROW
    WHEN ((OLD.status, OLD.percent, OLD.waiting_for_user, OLD.files_error)
          IS DISTINCT FROM (NEW.status, NEW.percent, NEW.waiting_for_user, NEW.files_error))
    EXECUTE FUNCTION notify_gateway('orders', 'order_id');
CREATE OR REPLACE TRIGGER orders_gone AFTER DELETE ON orders
    FOR EACH ROW EXECUTE FUNCTION notify_gateway('orders', 'order_id');

-- What is to be told of orders by mail or to webhooks. Sent notices are deleted. No foreign keys: what happened is told
-- even if the order is gone meanwhile.
CREATE TABLE IF NOT EXISTS notices (
    notice_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message      uuid NOT NULL DEFAULT gen_random_uuid(),  -- by which it can be told that it came twice
    channel      text NOT NULL,                -- mail, or webhook:<name>
    tenant       text NOT NULL,                -- name
    order_id     bigint NOT NULL,
    kind         text NOT NULL,                -- what happened
    body         jsonb NOT NULL,               -- the order as it was then; no secrets
    created_at   timestamptz NOT NULL DEFAULT now(),
    due_at       timestamptz NOT NULL DEFAULT now(),  -- before that nobody else looks at it
    lease        uuid,                         -- of the sender that has it in hand
    tries        integer NOT NULL DEFAULT 0,
    error        text,                         -- why it was not taken the last time
    given_up_at  timestamptz
);
CREATE INDEX IF NOT EXISTS notices_by_due ON notices (channel, due_at, notice_id) WHERE given_up_at IS NULL;
CREATE INDEX IF NOT EXISTS notices_given_up ON notices (given_up_at) WHERE given_up_at IS NOT NULL;
-- The end that the owner was reminded of.
ALTER TABLE orders ADD COLUMN IF NOT EXISTS reminded_for timestamptz;

-- Whom notices are for, the session says: [{"channel", "kinds", "tenants" (null: all)}, …]; without that nobody is told.
CREATE OR REPLACE FUNCTION write_notices() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    channels jsonb := nullif(current_setting('gateway.notices', true), '')::jsonb;
    changed jsonb := to_jsonb(CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END)
                     - '{owner_subject,owner_role,owner_groups}'::text[];
    tenant_name text;
    happened text;
BEGIN
    IF channels IS NULL THEN
        RETURN NULL;
    ELSIF TG_OP = 'DELETE' THEN
        happened := 'removed';
    ELSIF OLD.status <> NEW.status THEN
        happened := CASE WHEN OLD.status = 'PENDING' AND NEW.status = 'RUNNING' THEN 'created'
                         WHEN OLD.status = 'DONE' AND NEW.status = 'DONE_WITH_WARNING' THEN 'spoilt'
                         ELSE lower(NEW.status) END;
        changed := changed || jsonb_build_object('files_available_before', OLD.files_available);
    ELSIF OLD.reminded_for IS DISTINCT FROM NEW.reminded_for THEN
        happened := 'reminder';
    ELSE
        RETURN NULL;
    END IF;
    -- None if the tenant is what is deleted.
    SELECT name INTO tenant_name FROM tenants WHERE tenant_id = (changed ->> 'tenant_id')::integer;
    INSERT INTO notices (channel, tenant, order_id, kind, body)
    SELECT c.asked ->> 'channel', tenant_name, (changed ->> 'order_id')::bigint, happened, changed
    FROM jsonb_array_elements(channels) AS c(asked)
    WHERE tenant_name IS NOT NULL AND c.asked -> 'kinds' ? happened
      AND (jsonb_typeof(c.asked -> 'tenants') = 'null' OR c.asked -> 'tenants' ? tenant_name);
    IF FOUND THEN
        PERFORM pg_notify('gateway', '{"topic": "notices", "tenant": null, "id": null}');
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER orders_told AFTER DELETE OR UPDATE OF status, reminded_for ON orders
    FOR EACH ROW EXECUTE FUNCTION write_notices();

-- Search of products.

-- The time that a text writes as RFC 3339 has it, a day from its start on, without an offset in UTC; else NULL, and no
-- error whatever the text: properties hold all sorts. Not immutable only because a cast of text to a time is not.
CREATE OR REPLACE FUNCTION search_instant(value text) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN value !~ ('^(?!0000)\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)'
                       || '|02-(?:0[1-9]|[12]\d))(?:[Tt ](?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d+)?)?'
                       || '(?:[Zz]|[+-](?:0\d|1[0-4]):[0-5]\d)?)?$') THEN NULL
        WHEN substr(value, 6, 5) = '02-29' AND (left(value, 4)::integer % 4 <> 0
             OR (left(value, 4)::integer % 100 = 0 AND left(value, 4)::integer % 400 <> 0)) THEN NULL
        WHEN length(value) = 10 THEN (value || 'T00:00Z')::timestamptz
        ELSE (regexp_replace(upper(value), '(\.\d{6})\d+', '\1')
              || CASE WHEN value ~ '(?:[Zz]|[+-]\d\d:\d\d)$' THEN '' ELSE 'Z' END)::timestamptz
    END
$$;
CREATE INDEX IF NOT EXISTS products_by_property ON products USING gin (properties jsonb_path_ops);
CREATE INDEX IF NOT EXISTS products_by_creation ON products (tenant_id, created_at, product_id);
CREATE INDEX IF NOT EXISTS products_by_update ON products (tenant_id, updated_at, product_id);
CREATE INDEX IF NOT EXISTS products_by_start ON products (tenant_id, start_datetime, product_id);

-- Restores of nearline files. A copy that is NEARLINE can be read while restored_until is to come: where it lies, or as
-- what it was copied to, which is a copy of its own (entry_id).
ALTER TABLE copies
    ADD COLUMN IF NOT EXISTS restored_until timestamptz,
    ADD COLUMN IF NOT EXISTS entry_id bigint;  -- of cache_entries: the copy is one in the cache

-- One life of a restored copy, whoever asked for it: at most one of a file goes on at a time. No foreign keys to files
-- and copies: a restore that is under way is ended in order even if they are gone.
CREATE TABLE IF NOT EXISTS restores (
    restore_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id     integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    file_id       bigint NOT NULL,
    copy_id       bigint NOT NULL,             -- that is restored
    storage       text NOT NULL,               -- of the copy, as is its location
    location      text NOT NULL,
    size          bigint,                      -- bytes
    state         text NOT NULL DEFAULT 'QUEUED'
                  CHECK (state IN ('QUEUED', 'STAGING', 'RESTORED', 'EXPIRED', 'CANCELED', 'FAILED')),
    priority      smallint NOT NULL DEFAULT 5, -- the lowest first; of all who ask the lowest
    tape          text,                        -- where the storage can tell: on which medium it lies,
    position      bigint,                      -- and where on it
    wanted_until  timestamptz,                 -- that it is to be readable, once it is restored; the latest of all who ask,
    hours         double precision NOT NULL,   -- or so long from then on, if that is later
    requested_at  timestamptz NOT NULL DEFAULT now(),
    started_at    timestamptz,                 -- when the storage was first asked
    ready_at      timestamptz,                 -- when the storage says that it will be readable
    restored_at   timestamptz,
    expires_at    timestamptz,                 -- RESTORED: until when it can be read; EXPIRED: since when it cannot
    ended_at      timestamptz,                 -- EXPIRED, CANCELED, FAILED
    tries         integer NOT NULL DEFAULT 0,  -- that failed
    error         text,                        -- of the last failed one, for operators
    tried         bigint[] NOT NULL DEFAULT '{}',  -- other copies of the file, of which it did not come
    asked         boolean NOT NULL DEFAULT false,  -- the storage is to be told when it is needed no more
    roomed        boolean NOT NULL DEFAULT false,  -- as is the cache
    due_at        timestamptz,                 -- when it is to be looked at again: by whoever has it in hand, once he lets go
    lease         uuid,                        -- of the worker that has it in hand
    lease_until   timestamptz,                 -- without a sign of life it is another's from then on
    CHECK ((lease IS NULL) = (lease_until IS NULL)),
    CHECK ((state IN ('QUEUED', 'STAGING', 'RESTORED')) = (ended_at IS NULL)),
    CHECK (state NOT IN ('RESTORED', 'EXPIRED') OR (restored_at IS NOT NULL AND expires_at IS NOT NULL)),
    CHECK (state <> 'STAGING' OR started_at IS NOT NULL)
);
-- Single flight.
CREATE UNIQUE INDEX IF NOT EXISTS restores_of_file ON restores (file_id)
    WHERE state IN ('QUEUED', 'STAGING', 'RESTORED');
CREATE INDEX IF NOT EXISTS restores_by_file ON restores (file_id, restore_id);
CREATE INDEX IF NOT EXISTS restores_waiting ON restores (storage, priority, tape, position, restore_id)
    WHERE state = 'QUEUED';
CREATE INDEX IF NOT EXISTS restores_unplaced ON restores (storage, restore_id) WHERE state = 'QUEUED' AND tape IS NULL;
CREATE INDEX IF NOT EXISTS restores_by_due ON restores (storage, coalesce(lease_until, due_at))
    WHERE state IN ('STAGING', 'RESTORED');
CREATE INDEX IF NOT EXISTS restores_by_end ON restores (expires_at) WHERE state = 'RESTORED';
CREATE INDEX IF NOT EXISTS restores_in_hand ON restores (storage) WHERE state = 'STAGING' OR lease IS NOT NULL;
CREATE INDEX IF NOT EXISTS restores_to_clean ON restores (storage, restore_id)
    WHERE ended_at IS NOT NULL AND (asked OR roomed);
CREATE INDEX IF NOT EXISTS restores_lately ON restores (storage, restored_at) WHERE restored_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS restores_past ON restores (ended_at) WHERE ended_at IS NOT NULL;

-- Who asked for a restore. It is called off when nobody is left who wants it.
CREATE TABLE IF NOT EXISTS restore_wishes (
    restore_id     bigint NOT NULL REFERENCES restores ON DELETE CASCADE,
    tenant_id      integer NOT NULL,
    email          text NOT NULL,              -- empty: anonymous callers together
    order_file_id  bigint NOT NULL DEFAULT 0,  -- of the file of an order it is for; 0: for itself
    wished_at      timestamptz NOT NULL DEFAULT now(),
    pinned_until   timestamptz,                -- while the file of the order is not downloaded it stays until then
    PRIMARY KEY (restore_id, email, order_file_id)
);
CREATE INDEX IF NOT EXISTS restore_wishes_of_user ON restore_wishes (tenant_id, email, restore_id);
CREATE INDEX IF NOT EXISTS restore_wishes_of_order_file ON restore_wishes (order_file_id) WHERE order_file_id <> 0;

-- The cache: what it has promised room to, has, or is about to remove. The sum of the sizes is kept in caches.used, whose
-- row is locked by whoever changes it, and never gets above the size of the cache.
CREATE TABLE IF NOT EXISTS caches (
    name  text PRIMARY KEY,                    -- of its [[storage]]
    used  bigint NOT NULL DEFAULT 0 CHECK (used >= 0)
);
CREATE TABLE IF NOT EXISTS cache_entries (
    entry_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cache       text NOT NULL REFERENCES caches,
    restore_id  bigint NOT NULL UNIQUE,        -- no foreign key: its bytes lie there even if the restore is gone
    file_id     bigint NOT NULL,
    location    text NOT NULL,
    size        bigint NOT NULL CHECK (size >= 0),
    state       text NOT NULL CHECK (state IN ('FILLING', 'READY', 'REMOVING')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    used_at     timestamptz NOT NULL DEFAULT now(),  -- the last download began then, or goes on
    read_until  timestamptz,                   -- a download goes on: until then it stays; FILLING: when the lease ends
    lease       uuid,                          -- FILLING: of whoever writes it
    UNIQUE (cache, location)
);
CREATE INDEX IF NOT EXISTS cache_entries_by_use ON cache_entries (cache, used_at) WHERE state = 'READY';
CREATE INDEX IF NOT EXISTS cache_entries_to_remove ON cache_entries (cache, entry_id) WHERE state = 'REMOVING';
CREATE INDEX IF NOT EXISTS copies_of_entry ON copies (entry_id) WHERE entry_id IS NOT NULL;

-- Who follows a restore is woken when it goes on.
CREATE OR REPLACE TRIGGER restores_went_on AFTER INSERT OR UPDATE OF state, expires_at, ready_at, priority ON restores
    FOR EACH ROW EXECUTE FUNCTION notify_gateway('restores', 'restore_id');

-- Workers are woken when there is something to do for them, once a transaction. What they have in hand they see anyway.
CREATE OR REPLACE FUNCTION wake_restorers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('gateway', '{"topic": "restore_work", "tenant": null, "id": null}');
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER restores_to_do AFTER INSERT OR UPDATE OF state, due_at ON restores FOR EACH ROW
    WHEN (NEW.lease IS NULL AND CASE WHEN NEW.ended_at IS NOT NULL THEN NEW.asked OR NEW.roomed
          ELSE NEW.due_at <= now() OR (NEW.state = 'QUEUED' AND NEW.due_at IS NULL) END)
    EXECUTE FUNCTION wake_restorers();
-- What nobody waits for any more can make room.
CREATE OR REPLACE TRIGGER restore_wishes_gone AFTER DELETE ON restore_wishes FOR EACH ROW
    EXECUTE FUNCTION wake_restorers();

INSERT INTO schema_version (version) VALUES (6) ON CONFLICT DO NOTHING;
