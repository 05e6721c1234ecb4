-- The same bytes twice in one tenant: one set of files, an asset for each upload.

-- The asset whose source, tasks, media info, plan, renditions and published files this one uses; NULL: its own.
ALTER TABLE asset ADD COLUMN content_of TEXT REFERENCES asset (id);
-- What was to be made of it, as a digest of the preset with its settings. NULL: from before there was one.
ALTER TABLE asset ADD COLUMN recipe TEXT;
-- Where the bytes of its own upload lie, until they are removed because another asset has the same.
ALTER TABLE asset ADD COLUMN spare_source_key TEXT;

-- Has the tenant this content already?
CREATE INDEX asset_by_content ON asset (tenant, sha256, byte_len) WHERE state IN ('waiting', 'processing', 'ready');
-- Who uses the files of this asset?
CREATE INDEX asset_by_content_of ON asset (content_of) WHERE content_of IS NOT NULL;
CREATE INDEX asset_with_spare_source ON asset (id) WHERE spare_source_key IS NOT NULL;

-- Questions to clients that say they have the bytes. One is answered once; the upload that comes of it has its id.
CREATE TABLE possession (
    id          TEXT PRIMARY KEY,
    tenant      TEXT NOT NULL REFERENCES tenant (id),
    byte_len    INTEGER NOT NULL,
    sha256      TEXT NOT NULL,
    file_name   TEXT,
    metadata    TEXT NOT NULL,
    preset      TEXT NOT NULL,
    -- What the ranges follow from, and what the proof begins with.
    nonce       BLOB NOT NULL,
    created_ms  INTEGER NOT NULL,
    expires_ms  INTEGER NOT NULL,
    -- From then on it takes no other answer.
    answered_ms INTEGER,
    -- The answer, where it was right.
    proof       TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX possession_by_content ON possession (tenant, sha256, created_ms);
CREATE INDEX possession_by_age ON possession (created_ms);
