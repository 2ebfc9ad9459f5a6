-- Figures of the overview, kept up to date (decision 0018): sums by kind, place in time and label (schemas/figures.py).
-- Cells of events have revision 0: they are the same in all. Deltas are added up into cells by the worker.
create table figures (
    revision integer not null,
    kind smallint not null,
    place bigint not null,
    other integer not null,
    label text not null,
    n bigint not null,
    amount numeric not null,  -- scaled by 10^4
    primary key (revision, kind, place, other, label)
);
-- One row a transaction: its cells, packed. Small and written once, so that the transaction pays little for them.
create table figure_deltas (revision integer not null, cells bytea not null);
-- What was there before the figures is counted in the background. No row: all is counted.
create table figure_profile_fills (revision integer primary key, place uuid not null);
create table figure_event_fills (partition smallint primary key, at bigint not null, until bigint not null);

-- The orders of signatures that belong to nobody (any more): `state` holds the orders alone.
create table nobody (
    revision integer not null,
    signature uuid not null,
    state bytea not null,
    primary key (revision, signature)
);
create table nobody_due (revision integer not null, signature uuid not null, primary key (revision, signature));
create index register_erased on register (signature) where verdict = 4;
create index evidence_erased on evidence (signature) where tokens = '{}';

insert into figure_profile_fills
    select revision, '00000000-0000-0000-0000-000000000000' from revisions
    where to_regclass('profiles_r' || revision) is not null;
insert into figure_event_fills
    select p.partition, 0, p.next_offset from progress p join revisions r using (revision)
    where r.state = 'live' and p.next_offset > 0;
insert into nobody_due
    select r.revision, s.signature from revisions r, (
        select signature from register where verdict = 4
        union select signature from evidence where tokens = '{}') s
    where to_regclass('profiles_r' || r.revision) is not null;

-- Summaries of orders over the cap say more than before: their trees are made again, from the log.
do $$
declare
    found integer;
begin
    for found in
        select substring(tablename from '[0-9]+$')::integer from pg_tables
        where schemaname = current_schema and tablename ~ '^order_nodes_r[0-9]+$'
    loop
        execute format('insert into marks (revision, shard, kind, signatures, newest_us, newest_events)
            select %1$s, 0, ''refold'', array[signature], array[0], array[(''0'' || repeat(''0'', 31))::uuid] from evidence
            where profile_id in (select profile_id from order_nodes_r%1$s)
            and exists (select from revisions r where r.revision = %1$s and state in (''live'', ''building''))', found);
        execute format('truncate order_nodes_r%s', found);
    end loop;
end $$;
