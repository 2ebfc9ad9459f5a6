-- What was sent, beside the normal form that only compares. Sealed under the row's own key, as value_sealed is; null where
-- the two are equal, and in rows of earlier builds, which kept the normal form alone.
alter table identifiers add column sent_sealed bytea;
alter table identifiers alter column sent_sealed set statistics 0;
-- By which version of the normal forms all rows are hashed; 1: that of builds before this column.
alter table vault_meta add column forms integer not null default 1;
-- Tokens that are one identifier by the newer forms, until the log says so. `token` has the older row.
create table met_tokens (
    token uuid primary key,
    other uuid not null,
    kind text not null
);
