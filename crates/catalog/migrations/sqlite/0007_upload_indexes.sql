-- Questions about final uploads read no more rows than they have to.

-- Which one does a repeated creation mean?
CREATE INDEX upload_final_by_header ON upload (tenant, concat_header) WHERE kind = 'final';
-- Has a piece gone into one? Only later ones than the piece are looked at.
CREATE INDEX upload_final_by_age ON upload (tenant, id) WHERE kind = 'final';
-- Which ones wait?
CREATE INDEX upload_final_open ON upload (tenant, id) WHERE kind = 'final' AND state IN ('created', 'receiving');

-- The API key that asked, which is the only one that may answer. NULL: the server has no keys.
ALTER TABLE possession ADD COLUMN asked_by TEXT;
