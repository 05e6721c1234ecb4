-- The catalogue on PostgreSQL, first form: what SQLite's files 0001 to 0007 come to. What the columns mean is said there.
--
-- Numbers are BIGINT, truth values 0 and 1, as on SQLite. Text that is compared or sorted is COLLATE "C": by its bytes,
-- the same on every server, whatever its locale.

CREATE TABLE tenant (
    id         TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT NOT NULL,
    created_ms BIGINT NOT NULL
);

-- A tenant without a row, and a limit that is NULL: no limit but the server's own.
CREATE TABLE tenant_limit (
    tenant               TEXT COLLATE "C" PRIMARY KEY REFERENCES tenant (id),
    storage_bytes        BIGINT,
    max_upload_bytes     BIGINT,
    open_uploads         BIGINT,
    concurrent_transfers BIGINT,
    requests_per_second  BIGINT,
    updated_ms           BIGINT NOT NULL
);

CREATE TABLE api_key (
    id         TEXT COLLATE "C" PRIMARY KEY,
    tenant     TEXT COLLATE "C" NOT NULL REFERENCES tenant (id),
    label      TEXT COLLATE "C" NOT NULL,
    key_sha256 TEXT COLLATE "C" NOT NULL UNIQUE,
    created_ms BIGINT NOT NULL,
    revoked_ms BIGINT,
    -- Words separated by spaces; see Scope in src/keys.rs.
    scopes     TEXT NOT NULL DEFAULT ''
);

CREATE TABLE worker (
    id         TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT NOT NULL,
    in_process BIGINT NOT NULL,
    started_ms BIGINT NOT NULL
);

CREATE TABLE upload (
    id              TEXT COLLATE "C" PRIMARY KEY,
    tenant          TEXT COLLATE "C" NOT NULL REFERENCES tenant (id),
    state           TEXT COLLATE "C" NOT NULL,
    byte_len        BIGINT,
    byte_offset     BIGINT NOT NULL,
    file_name       TEXT,
    metadata        TEXT COLLATE "C" NOT NULL,
    preset          TEXT COLLATE "C" NOT NULL,
    sha256          TEXT COLLATE "C",
    traceparent     TEXT NOT NULL,
    created_ms      BIGINT NOT NULL,
    updated_ms      BIGINT NOT NULL,
    expires_ms      BIGINT NOT NULL,
    -- 'whole', 'partial', 'final' or 'parts'.
    kind            TEXT COLLATE "C" NOT NULL DEFAULT 'whole',
    completion      TEXT COLLATE "C" NOT NULL DEFAULT 'length',
    partials        TEXT NOT NULL DEFAULT '[]',
    concat_header   TEXT COLLATE "C",
    expected_sha256 TEXT COLLATE "C",
    to_assemble     BIGINT NOT NULL DEFAULT 0,
    fence           BIGINT NOT NULL DEFAULT 0,
    holder          TEXT COLLATE "C",
    held_until_ms   BIGINT NOT NULL DEFAULT 0,
    wanted_by       TEXT COLLATE "C",
    token           TEXT COLLATE "C",
    max_byte_len    BIGINT,
    reserved_bytes  BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX upload_by_state ON upload (state, expires_ms);
CREATE INDEX upload_to_assemble ON upload (id) WHERE to_assemble = 1;
CREATE INDEX upload_by_holder ON upload (holder) WHERE holder IS NOT NULL;
CREATE INDEX upload_by_token ON upload (tenant, token) WHERE token IS NOT NULL;
CREATE INDEX upload_open ON upload (tenant) WHERE state IN ('created', 'receiving', 'finishing');
CREATE INDEX upload_final_by_age ON upload (tenant, id) WHERE kind = 'final';
CREATE INDEX upload_final_open ON upload (tenant, id) WHERE kind = 'final' AND state IN ('created', 'receiving');
-- By hash: the header is as long as its list of partials, and an entry of a tree here is a third of a page at most.
CREATE INDEX upload_final_by_header ON upload USING hash (concat_header) WHERE kind = 'final';

CREATE TABLE upload_ledger (
    upload      TEXT COLLATE "C" PRIMARY KEY REFERENCES upload (id),
    byte_offset BIGINT NOT NULL,
    hash_state  BYTEA
);

CREATE TABLE upload_extent (
    upload     TEXT COLLATE "C" NOT NULL REFERENCES upload (id),
    start_byte BIGINT NOT NULL,
    end_byte   BIGINT NOT NULL,
    object_key TEXT NOT NULL,
    PRIMARY KEY (upload, start_byte)
);

CREATE TABLE upload_part (
    upload     TEXT COLLATE "C" NOT NULL REFERENCES upload (id),
    number     BIGINT NOT NULL,
    start_byte BIGINT NOT NULL,
    end_byte   BIGINT NOT NULL,
    sha256     BYTEA NOT NULL,
    PRIMARY KEY (upload, number)
);
CREATE INDEX upload_part_by_start ON upload_part (upload, start_byte);

CREATE TABLE asset (
    id               TEXT COLLATE "C" PRIMARY KEY,
    tenant           TEXT COLLATE "C" NOT NULL REFERENCES tenant (id),
    upload           TEXT COLLATE "C" UNIQUE REFERENCES upload (id),
    state            TEXT COLLATE "C" NOT NULL,
    title            TEXT COLLATE "C" NOT NULL,
    preset           TEXT COLLATE "C" NOT NULL,
    source_key       TEXT NOT NULL,
    byte_len         BIGINT NOT NULL,
    sha256           TEXT COLLATE "C" NOT NULL,
    media_facts      TEXT,
    warnings         TEXT NOT NULL,
    failure          TEXT,
    priority         BIGINT NOT NULL,
    traceparent      TEXT NOT NULL,
    created_ms       BIGINT NOT NULL,
    updated_ms       BIGINT NOT NULL,
    ready_ms         BIGINT,
    swept_ms         BIGINT,
    content_of       TEXT COLLATE "C" REFERENCES asset (id),
    recipe           TEXT COLLATE "C",
    spare_source_key TEXT
);
CREATE INDEX asset_by_tenant ON asset (tenant, id);
CREATE INDEX asset_by_state ON asset (state, id);
CREATE INDEX asset_to_sweep ON asset (state) WHERE swept_ms IS NULL;
CREATE INDEX asset_kept ON asset (tenant, byte_len) WHERE state <> 'deleted';
CREATE INDEX asset_by_content ON asset (tenant, sha256, byte_len) WHERE state IN ('waiting', 'processing', 'ready');
CREATE INDEX asset_by_content_of ON asset (content_of) WHERE content_of IS NOT NULL;
CREATE INDEX asset_with_spare_source ON asset (id) WHERE spare_source_key IS NOT NULL;

CREATE TABLE media_info (
    asset      TEXT COLLATE "C" PRIMARY KEY REFERENCES asset (id),
    info       TEXT NOT NULL,
    created_ms BIGINT NOT NULL
);

CREATE TABLE plan (
    asset      TEXT COLLATE "C" PRIMARY KEY REFERENCES asset (id),
    plan       TEXT NOT NULL,
    created_ms BIGINT NOT NULL
);

CREATE TABLE task (
    id             TEXT COLLATE "C" PRIMARY KEY,
    asset          TEXT COLLATE "C" NOT NULL REFERENCES asset (id),
    tenant         TEXT COLLATE "C" NOT NULL,
    kind           TEXT COLLATE "C" NOT NULL,
    ordinal        BIGINT NOT NULL,
    required       BIGINT NOT NULL,
    state          TEXT COLLATE "C" NOT NULL,
    priority       BIGINT NOT NULL,
    -- The fencing token: rises with every lease.
    attempt        BIGINT NOT NULL,
    worker         TEXT COLLATE "C",
    lease_until_ms BIGINT,
    not_before_ms  BIGINT NOT NULL,
    failed_count   BIGINT NOT NULL,
    lost_count     BIGINT NOT NULL,
    failure        TEXT,
    done_us        BIGINT NOT NULL,
    total_us       BIGINT NOT NULL,
    result         TEXT,
    done_attempt   BIGINT,
    traceparent    TEXT NOT NULL,
    created_ms     BIGINT NOT NULL,
    updated_ms     BIGINT NOT NULL,
    started_ms     BIGINT,
    finished_ms    BIGINT,
    restart_count  BIGINT NOT NULL DEFAULT 0,
    UNIQUE (asset, kind, ordinal)
);
-- A heartbeat changes no indexed column of the others, so it writes no index but the one of the leases.
CREATE INDEX task_to_claim ON task (priority DESC, created_ms, id) WHERE state = 'ready';
CREATE INDEX task_by_lease ON task (lease_until_ms) WHERE state = 'leased';
CREATE INDEX task_by_state ON task (state, id);

CREATE TABLE task_need (
    task  TEXT COLLATE "C" NOT NULL REFERENCES task (id),
    needs TEXT COLLATE "C" NOT NULL REFERENCES task (id),
    PRIMARY KEY (task, needs)
);
CREATE INDEX task_need_reverse ON task_need (needs);

CREATE TABLE rendition (
    asset        TEXT COLLATE "C" NOT NULL REFERENCES asset (id),
    name         TEXT COLLATE "C" NOT NULL,
    kind         TEXT COLLATE "C" NOT NULL,
    width        BIGINT,
    height       BIGINT,
    max_bit_rate BIGINT NOT NULL,
    codecs       TEXT,
    byte_len     BIGINT,
    PRIMARY KEY (asset, name)
);

CREATE TABLE publication (
    asset        TEXT COLLATE "C" PRIMARY KEY REFERENCES asset (id),
    playback_id  TEXT COLLATE "C" NOT NULL UNIQUE,
    state        TEXT COLLATE "C" NOT NULL,
    attempt      BIGINT,
    prefix       TEXT,
    summary      TEXT,
    created_ms   BIGINT NOT NULL,
    live_ms      BIGINT,
    withdrawn_ms BIGINT
);

-- What happened, in order. The number is given under the lock that commits take for their events (src/events.rs), so
-- that numbers become visible in their order and none is left out.
CREATE TABLE event (
    seq    BIGINT PRIMARY KEY,
    at_ms  BIGINT NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    kind   TEXT NOT NULL,
    upload TEXT COLLATE "C",
    asset  TEXT COLLATE "C",
    task   TEXT COLLATE "C",
    data   TEXT NOT NULL
);
CREATE INDEX event_by_asset ON event (asset, seq);

CREATE TABLE possession (
    id          TEXT COLLATE "C" PRIMARY KEY,
    tenant      TEXT COLLATE "C" NOT NULL REFERENCES tenant (id),
    byte_len    BIGINT NOT NULL,
    sha256      TEXT COLLATE "C" NOT NULL,
    file_name   TEXT,
    metadata    TEXT NOT NULL,
    preset      TEXT COLLATE "C" NOT NULL,
    nonce       BYTEA NOT NULL,
    created_ms  BIGINT NOT NULL,
    expires_ms  BIGINT NOT NULL,
    answered_ms BIGINT,
    proof       TEXT,
    asked_by    TEXT COLLATE "C"
);
CREATE INDEX possession_by_content ON possession (tenant, sha256, created_ms);
CREATE INDEX possession_by_age ON possession (created_ms);
