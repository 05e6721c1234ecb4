-- Who may do what, and how much of it.

-- Words separated by spaces; see Scope in src/keys.rs. A key that says nothing may do nothing; those that exist may all.
ALTER TABLE api_key ADD COLUMN scopes TEXT NOT NULL DEFAULT '';
UPDATE api_key SET scopes = 'admin';

-- A tenant without a row, and a limit that is NULL: no limit but the server's own.
CREATE TABLE tenant_limit (
    tenant               TEXT PRIMARY KEY REFERENCES tenant (id),
    storage_bytes        INTEGER,
    max_upload_bytes     INTEGER,
    open_uploads         INTEGER,
    concurrent_transfers INTEGER,
    requests_per_second  INTEGER,
    updated_ms           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The `jti` of the upload token that began it; NULL: begun with an API key. Names are unique within a tenant.
ALTER TABLE upload ADD COLUMN token TEXT;
-- What its token and its tenant's limits allowed when it was begun.
ALTER TABLE upload ADD COLUMN max_byte_len INTEGER;
-- Of an upload whose length is not known yet: how far its bytes are counted already.
ALTER TABLE upload ADD COLUMN reserved_bytes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX upload_by_token ON upload (tenant, token) WHERE token IS NOT NULL;

-- For the sums of the quota: what is open, and what is kept, of one tenant.
CREATE INDEX upload_open ON upload (tenant) WHERE state IN ('created', 'receiving', 'finishing');
CREATE INDEX asset_kept ON asset (tenant, byte_len) WHERE state <> 'deleted';
