-- Orders over the cap (decision 0020): what FOLD lays off from a signature's state, and the tree of a profile's orders.

-- Rows of a partition get ascending numbers in the order of their commits, for whoever folds it holds its progress row.
-- One sequence for all revisions: rows that a new revision takes over keep their numbers.
create sequence laid_off_ids;

create function create_order_tables(revision integer) returns void language plpgsql as $$
begin
    execute format('create table laid_off_r%s (
        signature uuid not null, partition smallint not null, id bigint not null default nextval(''laid_off_ids''),
        maps bytea not null, primary key (signature, partition, id))', revision);
    execute format('create table order_nodes_r%s (
        profile_id uuid not null, node smallint not null, summary bytea not null, maps bytea,
        primary key (profile_id, node)) with (fillfactor = 70)', revision);
end $$;

alter function create_revision_tables(integer) rename to create_state_tables;
create function create_revision_tables(revision integer) returns void language plpgsql as $$
begin
    perform create_state_tables(revision);
    perform create_order_tables(revision);
end $$;

create or replace function drop_revision_tables(revision integer) returns void language plpgsql as $$
begin
    execute format('drop table if exists states_r%1$s, profiles_r%1$s, memberships_r%1$s, laid_off_r%1$s,
        order_nodes_r%1$s', revision);
end $$;

-- The cap was 8,192 and entries over it were in the log alone. Whose states may be over the new one (512) are made
-- again from the log; the worker does it in small steps.
do $$
declare
    found integer;
begin
    for found in
        select substring(tablename from '[0-9]+$')::integer from pg_tables
        where schemaname = current_schema and tablename ~ '^profiles_r[0-9]+$'
    loop
        perform create_order_tables(found);
        insert into marks (revision, shard, kind, signatures, newest_us, newest_events)
        select found, 0, 'refold', array[signature], array[0], array[('0' || repeat('0', 31))::uuid]
        from register
        where verdict = 0 and exists (select from revisions r where r.revision = found and state in ('live', 'building'))
        group by signature having count(*) > 512;
    end loop;
end $$;
