-- Cluster mode: who owns which partition, who lives, how far the feed was published.

alter table progress add column owner text;
-- Processes of the roles on all machines; a row is as old as its last sign of life.
create table processes (
    id text primary key,
    role text not null,
    host text not null,
    pid integer not null,
    started_at timestamptz not null,
    seen_at timestamptz not null,
    detail jsonb not null default '{}'
);
-- The publisher's place in the change feed, (seq, idx) of the last change the brokers acknowledged.
create table publishers (
    name text primary key,
    seq bigint not null default 0,
    idx integer not null default -1,
    epoch bigint not null default 0
);
-- Several workers count one day's moves: each in a row of its own, so that none waits for another's commit.
alter table segment_days add column part smallint not null default 0;
alter table segment_days drop constraint segment_days_pkey;
alter table segment_days add primary key (segment, day, part);
