-- The vault: the one store that can forget (design C2). Its own database, dumped by itself.

-- One row: the current epoch, and the hash key wrapped by the master key.
create table vault_meta (
    one boolean primary key default true check (one),
    epoch bigint not null,
    hash_key_wrapped bytea not null,
    master_check bytea not null
);
-- hash: keyed hash of (kind, normalised value). value_sealed: the value under the row's own key.
create table identifiers (
    hash bytea primary key,
    token uuid not null unique,
    kind text not null,
    key_wrapped bytea not null,
    value_sealed bytea not null
);
-- Keys that belong to no identifier: the daily keys of dead letters.
create table daily_keys (
    day date primary key,
    token uuid not null unique,
    key_wrapped bytea not null
);
create table suppressed (hash bytea primary key, since timestamptz not null);
create table leases (
    door uuid primary key,
    epoch bigint not null,
    expires_at timestamptz not null
);
