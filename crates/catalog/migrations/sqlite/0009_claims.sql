-- The call that leased a task, by its name: an answer that was lost on the way is found again by it, and what it brought
-- goes back in line. Means nothing in any other state.
ALTER TABLE task ADD COLUMN claim TEXT;
