-- For questions that are asked all the time of tables that only grow.

-- Which assets still have files to remove? Few, among all that there ever were.
CREATE INDEX asset_to_sweep ON asset (state) WHERE swept_ms IS NULL;
-- The dead letters, newest first.
CREATE INDEX task_by_state ON task (state, id);
