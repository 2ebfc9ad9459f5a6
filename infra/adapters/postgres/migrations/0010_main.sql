-- Records that cannot be read yet: where a partition waits, and what was set aside by hand.

-- A partition of a reader (worker, archive, refold) waits at a record. A worker's row counts only while the live
-- revision stands at its offset: what goes on need not tell.
create table waiting (
    reader text not null,
    partition smallint not null,
    "offset" bigint not null,
    code text not null,
    reason text not null,
    since timestamptz not null,
    primary key (reader, partition)
);
-- Never rebuilt, as not_applied; the facts say the same in order.
create table set_aside (
    partition smallint not null,
    "offset" bigint not null,
    at timestamptz not null,
    who text not null,
    code text not null,
    reason text not null,
    restored_at timestamptz,
    primary key (partition, "offset")
);
