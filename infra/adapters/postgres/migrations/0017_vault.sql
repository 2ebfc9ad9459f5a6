-- What was sent, beside the normal form that only compares. Sealed under the row's own key, as value_sealed is; null where
-- the two are equal, and in rows of earlier builds, which kept the normal form alone.
alter table identifiers add column sent_sealed bytea;
alter table identifiers alter column sent_sealed set statistics 0;
