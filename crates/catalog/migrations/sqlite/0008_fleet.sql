-- The fleet: many nodes and workers on one catalogue.

-- The server process that an in-process worker lived in: its leases end when that node starts anew, and no other's.
ALTER TABLE worker ADD COLUMN node TEXT;
-- What it said about itself when it registered: its program's version, and as JSON its machine.
ALTER TABLE worker ADD COLUMN version TEXT NOT NULL DEFAULT '';
ALTER TABLE worker ADD COLUMN machine TEXT NOT NULL DEFAULT '{}';
ALTER TABLE worker ADD COLUMN last_seen_ms INTEGER NOT NULL DEFAULT 0;
-- 1: somebody wants it to take nothing new.
ALTER TABLE worker ADD COLUMN drain INTEGER NOT NULL DEFAULT 0;
-- When it said that it ends.
ALTER TABLE worker ADD COLUMN ended_ms INTEGER;
CREATE INDEX worker_by_seen ON worker (last_seen_ms);

-- How a tenant's work stands beside that of others. NULL: weight 1; as many at a time as there are workers.
ALTER TABLE tenant_limit ADD COLUMN share_weight INTEGER;
ALTER TABLE tenant_limit ADD COLUMN running_tasks INTEGER;

-- What its sender asked for; the asset takes it over.
ALTER TABLE upload ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
-- The encoder that made the first chunk that was done: all others are made with it.
ALTER TABLE asset ADD COLUMN encoder TEXT;
UPDATE asset SET encoder = (SELECT result ->> '$.encoder' FROM task
                            WHERE task.asset = asset.id AND kind = 'encode' AND state = 'done' LIMIT 1)
WHERE state IN ('waiting', 'processing', 'failed', 'cancelled');
-- 'urgent', 'normal' or 'bulk', of the asset's priority: whose turn it is, before what kind of work it is.
ALTER TABLE task ADD COLUMN tier TEXT NOT NULL DEFAULT 'normal';
-- When it became ready for the last time: from then on it waits for a worker.
ALTER TABLE task ADD COLUMN ready_ms INTEGER NOT NULL DEFAULT 0;
UPDATE task SET ready_ms = updated_ms WHERE state = 'ready';

-- What may be claimed, by tenant: the next of each in the order in which they are given out.
DROP INDEX task_to_claim;
CREATE INDEX task_waiting ON task (tenant, tier, kind, priority DESC, created_ms, id) WHERE state = 'ready';
-- Who runs how much.
CREATE INDEX task_running ON task (tenant, tier) WHERE state = 'leased';
CREATE INDEX task_in_back_off ON task (not_before_ms) WHERE state = 'retry_wait';

-- Attempts that did not work out, with what is known of why: the evidence of a dead letter.
CREATE TABLE task_failure (
    task       TEXT NOT NULL REFERENCES task (id),
    attempt    INTEGER NOT NULL,
    -- 'failed' or 'lost'.
    outcome    TEXT NOT NULL,
    worker     TEXT,
    started_ms INTEGER,
    ended_ms   INTEGER NOT NULL,
    -- JSON: code, detail, the last lines of the child's standard error.
    failure    TEXT NOT NULL,
    PRIMARY KEY (task, attempt)
) STRICT, WITHOUT ROWID;

-- Wake-ups that are still to be given to the broker. Written with the change that made the task ready.
CREATE TABLE ticket_outbox (
    task             TEXT PRIMARY KEY REFERENCES task (id),
    kind             TEXT NOT NULL,
    tier             TEXT NOT NULL,
    traceparent      TEXT NOT NULL,
    created_ms       INTEGER NOT NULL,
    -- Who is giving it to the broker, and until when nobody else tries.
    claim_token      TEXT,
    claimed_until_ms INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX ticket_outbox_by_claim ON ticket_outbox (claimed_until_ms, created_ms);

-- Kinds of work that nobody takes up for now.
CREATE TABLE queue_pause (
    kind      TEXT PRIMARY KEY,
    paused_by TEXT NOT NULL,
    reason    TEXT NOT NULL,
    paused_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What people did to jobs, queues and workers. Only ever grows.
CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms   INTEGER NOT NULL,
    -- Whose rows were touched; NULL: the whole fleet's.
    tenant  TEXT,
    -- Who: an API key by its id and label, or the command line on the server's machine.
    actor   TEXT NOT NULL,
    -- `noun.verb`.
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason  TEXT,
    data    TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_subject ON audit (subject, seq);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

-- Keys that all nodes share, made by the first. Not used where one process has the catalogue: they are files there.
CREATE TABLE secret (
    name       TEXT PRIMARY KEY,
    value      TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Chores that one node does for all. Who has it goes on with it; when that one is silent another takes over. Only saves
-- work: each chore is safe to be done twice at once.
CREATE TABLE duty (
    name     TEXT PRIMARY KEY,
    node     TEXT NOT NULL,
    until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
