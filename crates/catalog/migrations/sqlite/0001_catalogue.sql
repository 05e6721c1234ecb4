-- The catalogue, first form. Ids are UUIDs as text, times are Unix milliseconds, states are the names of the machines
-- in crates/model. Documents (media info, plans, results, failures) are JSON that carries its own version.

CREATE TABLE tenant (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE api_key (
    id         TEXT PRIMARY KEY,
    tenant     TEXT NOT NULL REFERENCES tenant (id),
    label      TEXT NOT NULL,
    -- SHA-256 of the key, lower-case hexadecimal: keys are random, so a slow hash would add nothing.
    key_sha256 TEXT NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER
) STRICT;

CREATE TABLE worker (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    -- 1: lives and dies with the server process, so its leases end when the server starts anew.
    in_process INTEGER NOT NULL,
    started_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE upload (
    id           TEXT PRIMARY KEY,
    tenant       TEXT NOT NULL REFERENCES tenant (id),
    state        TEXT NOT NULL,
    -- NULL until the client tells it.
    byte_len     INTEGER,
    -- What was acknowledged when this row was last written; the journal beside the bytes knows better.
    byte_offset  INTEGER NOT NULL,
    file_name    TEXT,
    -- The client's metadata, as it came.
    metadata     TEXT NOT NULL,
    preset       TEXT NOT NULL,
    sha256       TEXT,
    traceparent  TEXT NOT NULL,
    created_ms   INTEGER NOT NULL,
    updated_ms   INTEGER NOT NULL,
    expires_ms   INTEGER NOT NULL
) STRICT;
CREATE INDEX upload_by_state ON upload (state, expires_ms);

CREATE TABLE asset (
    id           TEXT PRIMARY KEY,
    tenant       TEXT NOT NULL REFERENCES tenant (id),
    upload       TEXT UNIQUE REFERENCES upload (id),
    state        TEXT NOT NULL,
    title        TEXT NOT NULL,
    preset       TEXT NOT NULL,
    source_key   TEXT NOT NULL,
    byte_len     INTEGER NOT NULL,
    sha256       TEXT NOT NULL,
    -- Without the keyframe index, which is long: the whole is in media_info.
    media_facts  TEXT,
    -- Sentences for the creator.
    warnings     TEXT NOT NULL,
    failure      TEXT,
    priority     INTEGER NOT NULL,
    traceparent  TEXT NOT NULL,
    created_ms   INTEGER NOT NULL,
    updated_ms   INTEGER NOT NULL,
    ready_ms     INTEGER,
    -- When its files beyond the publication were removed.
    swept_ms     INTEGER
) STRICT;
CREATE INDEX asset_by_tenant ON asset (tenant, id);
CREATE INDEX asset_by_state ON asset (state, id);

CREATE TABLE media_info (
    asset      TEXT PRIMARY KEY REFERENCES asset (id),
    info       TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE plan (
    asset      TEXT PRIMARY KEY REFERENCES asset (id),
    plan       TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE task (
    id             TEXT PRIMARY KEY,
    asset          TEXT NOT NULL REFERENCES asset (id),
    tenant         TEXT NOT NULL,
    kind           TEXT NOT NULL,
    -- The chunk of an encode task, else 0.
    ordinal        INTEGER NOT NULL,
    -- 0: the asset plays without it.
    required       INTEGER NOT NULL,
    state          TEXT NOT NULL,
    priority       INTEGER NOT NULL,
    -- The fencing token: rises with every lease.
    attempt        INTEGER NOT NULL,
    worker         TEXT,
    lease_until_ms INTEGER,
    not_before_ms  INTEGER NOT NULL,
    failed_count   INTEGER NOT NULL,
    lost_count     INTEGER NOT NULL,
    failure        TEXT,
    done_us        INTEGER NOT NULL,
    total_us       INTEGER NOT NULL,
    result         TEXT,
    -- The attempt whose outputs count.
    done_attempt   INTEGER,
    traceparent    TEXT NOT NULL,
    created_ms     INTEGER NOT NULL,
    updated_ms     INTEGER NOT NULL,
    started_ms     INTEGER,
    finished_ms    INTEGER,
    UNIQUE (asset, kind, ordinal)
) STRICT;
CREATE INDEX task_to_claim ON task (state, kind, priority, created_ms, id);
CREATE INDEX task_by_lease ON task (lease_until_ms) WHERE state = 'leased';

CREATE TABLE task_need (
    task  TEXT NOT NULL REFERENCES task (id),
    needs TEXT NOT NULL REFERENCES task (id),
    PRIMARY KEY (task, needs)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_need_reverse ON task_need (needs);

CREATE TABLE rendition (
    asset        TEXT NOT NULL REFERENCES asset (id),
    name         TEXT NOT NULL,
    -- 'video' or 'audio'.
    kind         TEXT NOT NULL,
    width        INTEGER,
    height       INTEGER,
    max_bit_rate INTEGER NOT NULL,
    -- Known when published.
    codecs       TEXT,
    byte_len     INTEGER,
    PRIMARY KEY (asset, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE publication (
    -- One publication for each asset, whatever happens twice.
    asset        TEXT PRIMARY KEY REFERENCES asset (id),
    playback_id  TEXT NOT NULL UNIQUE,
    state        TEXT NOT NULL,
    -- The attempt of the publish task whose files play, and where they lie.
    attempt      INTEGER,
    prefix       TEXT,
    -- What there is to play: a small JSON document for pages and the API.
    summary      TEXT,
    created_ms   INTEGER NOT NULL,
    live_ms      INTEGER,
    withdrawn_ms INTEGER
) STRICT, WITHOUT ROWID;

-- Append-only: what happened, in order. Serves /v1/events and is the outbox of whatever else wants to know.
CREATE TABLE event (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms  INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    kind   TEXT NOT NULL,
    upload TEXT,
    asset  TEXT,
    task   TEXT,
    data   TEXT NOT NULL
) STRICT;
CREATE INDEX event_by_asset ON event (asset, seq);
