-- The people's side: search tokens, people who sign in, their sessions, and what they looked at.

-- Search (design C2): `words` holds keyed hashes of whole words, prefixes and last digits; no clear value.
create table search (profile_id uuid primary key, words bigint[] not null);
create index search_words on search using gin (words);
-- Profiles whose names or identifiers changed; written by DECIDE with the decision, taken by the indexer.
create table search_due (profile_id uuid primary key);
insert into search_due select distinct profile_id from evidence where profile_id is not null;

-- People. password_hash: argon2id; null until the person followed the invitation.
create table people (
    id text primary key,
    name text not null unique,
    role text not null,
    password_hash text,
    created_at timestamptz not null,
    disabled_at timestamptz
);
-- A link that is shown once and used once: the first admin's, an invited colleague's, a forgotten password's.
create table invitations (
    token_hash bytea primary key,
    person text not null references people (id),
    created_at timestamptz not null,
    expires_at timestamptz not null,
    used_at timestamptz
);
-- `token`: the API token a session was opened with, instead of a person.
create table sessions (
    session_hash bytea primary key,
    person text references people (id),
    token text references api_tokens (id),
    created_at timestamptz not null,
    seen_at timestamptz not null,
    expires_at timestamptz not null,
    ended_at timestamptz,
    check ((person is null) <> (token is null))
);
create index sessions_person on sessions (person);

-- Who looked at whom and who did what; append-only, gapless, each row hashed over the one before it. No clear value.
-- meta has the last row's seq and hash as 'audit_head', so that entries missing at the end are seen too.
create table audit_log (
    seq bigint primary key,
    at timestamptz not null,
    who text not null,
    role text not null,
    action text not null,
    profile_id uuid,
    detail jsonb not null default '{}',
    hash bytea not null
);
create index audit_log_profile on audit_log (profile_id) where profile_id is not null;
