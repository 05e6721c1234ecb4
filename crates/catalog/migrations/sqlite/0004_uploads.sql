-- Uploads of several kinds, on several nodes.

-- 'whole', 'partial' (a piece that becomes part of a final one), 'final', or 'parts'.
ALTER TABLE upload ADD COLUMN kind TEXT NOT NULL DEFAULT 'whole';
-- 'length': complete when all bytes are there; 'declared': when its sender says so.
ALTER TABLE upload ADD COLUMN completion TEXT NOT NULL DEFAULT 'length';
-- Of a final upload: the ids of its partials, in order, as JSON, and the header as its sender wrote it.
ALTER TABLE upload ADD COLUMN partials TEXT NOT NULL DEFAULT '[]';
ALTER TABLE upload ADD COLUMN concat_header TEXT;
-- What its sender says that the whole hashes to, lower-case hexadecimal.
ALTER TABLE upload ADD COLUMN expected_sha256 TEXT;

-- 1: its source lies in pieces in the store, and is to become one object.
ALTER TABLE upload ADD COLUMN to_assemble INTEGER NOT NULL DEFAULT 0;
CREATE INDEX upload_to_assemble ON upload (id) WHERE to_assemble = 1;

-- The node that works on it, until when, its fencing token, and who else wants it. Unused while one node has the store.
ALTER TABLE upload ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE upload ADD COLUMN holder TEXT;
ALTER TABLE upload ADD COLUMN held_until_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE upload ADD COLUMN wanted_by TEXT;
CREATE INDEX upload_by_holder ON upload (holder) WHERE holder IS NOT NULL;

-- The ledger of uploads whose bytes lie in a store that cannot decide by itself (S3): what is durable.
CREATE TABLE upload_ledger (
    upload      TEXT PRIMARY KEY REFERENCES upload (id),
    byte_offset INTEGER NOT NULL,
    hash_state  BLOB
) STRICT, WITHOUT ROWID;

-- The bytes from start_byte to end_byte (exclusive) are the object of this key. Of a finished upload: its source.
CREATE TABLE upload_extent (
    upload     TEXT NOT NULL REFERENCES upload (id),
    start_byte INTEGER NOT NULL,
    end_byte   INTEGER NOT NULL,
    object_key TEXT NOT NULL,
    PRIMARY KEY (upload, start_byte)
) STRICT, WITHOUT ROWID;

-- Parts of an upload in parts, where the ledger is kept here.
CREATE TABLE upload_part (
    upload     TEXT NOT NULL REFERENCES upload (id),
    number     INTEGER NOT NULL,
    start_byte INTEGER NOT NULL,
    end_byte   INTEGER NOT NULL,
    sha256     BLOB NOT NULL,
    PRIMARY KEY (upload, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX upload_part_by_start ON upload_part (upload, start_byte);
