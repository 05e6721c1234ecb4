-- What a task costs as it moves from ready to leased to done: fewer indexes to write, fewer rows to look up and lock.
-- PostgreSQL only: SQLite has one writer, and none of this shows there.

-- A change of state makes a new entry in every index that the row is in. Which tasks are in a state is asked of the
-- states that few tasks are in, and they have indexes of their own. Leases that ran out are found among those that run.
DROP INDEX task_by_state;
DROP INDEX task_by_lease;
CREATE INDEX task_dead ON task (tenant, id) WHERE state = 'dead';

-- A result is kilobytes of JSON. lz4 packs it about as small for a small part of the time, where the server knows it.
DO $$ BEGIN
    ALTER TABLE task ALTER COLUMN result SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN NULL;
END $$;

-- These rows are made in the transaction that makes the task, or has it locked, and tasks are never deleted. The check
-- was a look at the task and a lock on it, for each row.
ALTER TABLE task_need DROP CONSTRAINT task_need_task_fkey;
ALTER TABLE task_need DROP CONSTRAINT task_need_needs_fkey;
ALTER TABLE ticket_outbox DROP CONSTRAINT ticket_outbox_task_fkey;

-- Its rows live for a moment, and what is left of them lies where the relay looks first.
ALTER TABLE ticket_outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
