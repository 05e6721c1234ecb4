-- Ends of the server's process with the task at work in it, since its last try was asked for.
ALTER TABLE task ADD COLUMN restart_count INTEGER NOT NULL DEFAULT 0;
