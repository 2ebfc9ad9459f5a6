-- Several workers let one profile grow: `summed` changes when a profile is summed anew from its signatures' states.

create or replace function create_revision_tables(revision integer) returns void language plpgsql as $$
begin
    execute format('create table states_r%s (
        signature uuid not null, partition smallint not null, state bytea not null,
        primary key (signature, partition)) with (fillfactor = 70)', revision);
    execute format('create table profiles_r%s (
        profile_id uuid primary key, version bigint not null, state bytea not null,
        decided_us bigint not null, due_us bigint, lagging boolean not null default false,
        first_us bigint, last_us bigint, event_count bigint not null,
        segments bytea not null, lifecycle text not null, risk text not null, points integer not null,
        reasons jsonb not null, summed bigint not null default 0) with (fillfactor = 70)', revision);
    execute format('create index profiles_r%s_due on profiles_r%s (due_us) where due_us is not null',
        revision, revision);
    execute format('create table memberships_r%s (
        segment smallint not null, profile_id uuid not null, since_us bigint, primary key (segment, profile_id))',
        revision);
    execute format('create index memberships_r%s_profile on memberships_r%s (profile_id)', revision, revision);
end $$;
do $$
declare
    found text;
begin
    for found in
        select tablename from pg_tables where schemaname = current_schema and tablename ~ '^profiles_r[0-9]+$'
    loop
        execute format('alter table %I add column summed bigint not null default 0', found);
    end loop;
end $$;
