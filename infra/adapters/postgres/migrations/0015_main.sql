-- Erased tokens have the day, not the moment, that somebody may remember beside a name (decision 0027).

alter table erased_tokens alter column erased_at type date using (erased_at at time zone 'UTC')::date;
alter table erased_tokens rename column erased_at to erased_on;
