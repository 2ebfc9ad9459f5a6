-- By which declarations of what is clear the archive's columns are made.

-- `hash` is what an entry of the archive's manifest names; the row with the newest `since` is in force. `since`: when
-- its definitions were applied, so that what was received before may be sealed in files that follow another row.
create table clear_rules (
    hash text primary key,
    declared jsonb not null,
    since timestamptz not null
);
