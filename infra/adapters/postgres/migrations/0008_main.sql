-- Reads at size: members of each segment counted as they come and go, profiles in order of when they were last seen,
-- and a way past the backlog of the search index for customers who act now.

-- Each transaction adds its differences to a row of its own part, so that none waits for another's commit.
create table segment_counts (
    revision integer not null, segment smallint not null, part smallint not null, members bigint not null,
    primary key (revision, segment, part)
) with (fillfactor = 50);
create index segment_days_day on segment_days (day);
create index dead_letters_state on dead_letters (state, received_at desc, id);
-- What search orders by.
create function create_profile_order(revision integer) returns void language plpgsql as $$
begin
    execute format('create index if not exists profiles_r%s_seen on profiles_r%s (last_us desc nulls last, profile_id)',
        revision, revision);
end $$;
-- Around what the migrations before made of it.
alter function create_revision_tables(integer) rename to create_revision_tables_0004;
create function create_revision_tables(revision integer) returns void language plpgsql as $$
begin
    perform create_revision_tables_0004(revision);
    perform create_profile_order(revision);
end $$;
-- `acting`: a customer seen at the time of the decision, whom somebody may look for now; one of a history can wait.
alter table search_due add column acting boolean not null default false;
alter table search_due add column id bigint generated always as identity;
create index search_due_acting on search_due (id) where acting;
create index search_due_id on search_due (id);
do $$
declare
    number integer;
begin
    for number in
        select substring(tablename from '[0-9]+$')::integer from pg_tables
        where schemaname = current_schema and tablename ~ '^memberships_r[0-9]+$'
    loop
        perform create_profile_order(number);
        execute format('insert into segment_counts select %s, segment, 0, count(*) from memberships_r%s group by segment',
            number, number);
    end loop;
end $$;
