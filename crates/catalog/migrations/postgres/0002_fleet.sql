-- The fleet: many nodes and workers on one catalogue. The same form as SQLite's 0008.

-- The server process that an in-process worker lived in: its leases end when that node starts anew, and no other's.
ALTER TABLE worker ADD COLUMN node TEXT;
-- What it said about itself when it registered: its program's version, and as JSON its machine.
ALTER TABLE worker ADD COLUMN version TEXT NOT NULL DEFAULT '';
ALTER TABLE worker ADD COLUMN machine TEXT NOT NULL DEFAULT '{}';
ALTER TABLE worker ADD COLUMN last_seen_ms BIGINT NOT NULL DEFAULT 0;
-- 1: somebody wants it to take nothing new.
ALTER TABLE worker ADD COLUMN drain BIGINT NOT NULL DEFAULT 0;
-- When it said that it ends.
ALTER TABLE worker ADD COLUMN ended_ms BIGINT;
CREATE INDEX worker_by_seen ON worker (last_seen_ms);

-- How a tenant's work stands beside that of others. NULL: weight 1; as many at a time as there are workers.
ALTER TABLE tenant_limit ADD COLUMN share_weight BIGINT;
ALTER TABLE tenant_limit ADD COLUMN running_tasks BIGINT;

-- What its sender asked for; the asset takes it over.
ALTER TABLE upload ADD COLUMN priority BIGINT NOT NULL DEFAULT 0;
-- The encoder that made the first chunk that was done: all others are made with it.
ALTER TABLE asset ADD COLUMN encoder TEXT;
-- 'urgent', 'normal' or 'bulk', of the asset's priority: whose turn it is, before what kind of work it is.
ALTER TABLE task ADD COLUMN tier TEXT COLLATE "C" NOT NULL DEFAULT 'normal';
-- When it became ready for the last time: from then on it waits for a worker.
ALTER TABLE task ADD COLUMN ready_ms BIGINT NOT NULL DEFAULT 0;
UPDATE task SET ready_ms = updated_ms WHERE state = 'ready';

-- What may be claimed, by tenant: the next of each in the order in which they are given out.
DROP INDEX task_to_claim;
CREATE INDEX task_waiting ON task (tenant, tier, kind, priority DESC, created_ms, id) WHERE state = 'ready';
-- Who runs how much.
CREATE INDEX task_running ON task (tenant, tier) WHERE state = 'leased';
CREATE INDEX task_in_back_off ON task (not_before_ms) WHERE state = 'retry_wait';
-- Every task row is rewritten several times in its life.
ALTER TABLE task SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

-- Attempts that did not work out, with what is known of why: the evidence of a dead letter.
CREATE TABLE task_failure (
    task       TEXT COLLATE "C" NOT NULL REFERENCES task (id),
    attempt    BIGINT NOT NULL,
    -- 'failed' or 'lost'.
    outcome    TEXT NOT NULL,
    worker     TEXT,
    started_ms BIGINT,
    ended_ms   BIGINT NOT NULL,
    -- JSON: code, detail, the last lines of the child's standard error.
    failure    TEXT NOT NULL,
    PRIMARY KEY (task, attempt)
);

-- Wake-ups that are still to be given to the broker. Written with the change that made the task ready.
CREATE TABLE ticket_outbox (
    task             TEXT COLLATE "C" PRIMARY KEY REFERENCES task (id),
    kind             TEXT NOT NULL,
    tier             TEXT NOT NULL,
    traceparent      TEXT NOT NULL,
    created_ms       BIGINT NOT NULL,
    -- Who is giving it to the broker, and until when nobody else tries.
    claim_token      TEXT,
    claimed_until_ms BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX ticket_outbox_by_claim ON ticket_outbox (claimed_until_ms, created_ms);

-- Kinds of work that nobody takes up for now.
CREATE TABLE queue_pause (
    kind      TEXT PRIMARY KEY,
    paused_by TEXT NOT NULL,
    reason    TEXT NOT NULL,
    paused_ms BIGINT NOT NULL
);

-- What people did to jobs, queues and workers. Only ever grows.
CREATE TABLE audit (
    seq     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ms   BIGINT NOT NULL,
    -- Whose rows were touched; NULL: the whole fleet's.
    tenant  TEXT COLLATE "C",
    -- Who: an API key by its id and label, or the command line on the server's machine.
    actor   TEXT NOT NULL,
    -- `noun.verb`.
    action  TEXT NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    reason  TEXT,
    data    TEXT NOT NULL
);
CREATE INDEX audit_by_subject ON audit (subject, seq);
CREATE FUNCTION audit_refuses() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit_refuses();

-- Keys that all nodes share, made by the first. Not used where one process has the catalogue: they are files there.
CREATE TABLE secret (
    name       TEXT COLLATE "C" PRIMARY KEY,
    value      TEXT NOT NULL,
    created_ms BIGINT NOT NULL
);

-- Chores that one node does for all. Who has it goes on with it; when that one is silent another takes over. Only saves
-- work: each chore is safe to be done twice at once.
CREATE TABLE duty (
    name     TEXT COLLATE "C" PRIMARY KEY,
    node     TEXT NOT NULL,
    until_ms BIGINT NOT NULL
);
