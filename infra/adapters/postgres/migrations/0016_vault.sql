-- Keys of the hashes of searched words in the audit log, one a day. The next erasure destroys them all (decision 0026).
create table word_keys (
    day date primary key,
    token uuid not null unique,
    key_wrapped bytea not null
);
-- ANALYZE copies nothing of them into pg_statistic, where no erasure looks.
alter table word_keys alter column token set statistics 0;
alter table word_keys alter column key_wrapped set statistics 0;
