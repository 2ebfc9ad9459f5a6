-- The main database: log, register, identity, projections by revision, change feed, sources.
-- uuid columns hold 128-bit tokens, keys and signatures. No clear personal value is stored here (design C2).

create table meta (key text primary key, value jsonb not null);

-- System facts, closed and versioned (schemas/facts.py), in the order they became true.
create table facts (
    seq bigint generated always as identity primary key,
    type text not null,
    version integer not null,
    at timestamptz not null,
    payload jsonb not null
);

-- The log. Offsets are given by the writer under the row lock of log_head, so they are gapless.
create table event_log (
    partition smallint not null,
    "offset" bigint not null,
    value bytea not null,
    primary key (partition, "offset")
) partition by list (partition);
create table event_log_0 partition of event_log for values in (0);
create table event_log_1 partition of event_log for values in (1);
create table event_log_2 partition of event_log for values in (2);
create table event_log_3 partition of event_log for values in (3);
create table log_head (partition smallint primary key, next_offset bigint not null) with (fillfactor = 10);
insert into log_head values (0, 0), (1, 0), (2, 0), (3, 0);

-- Sources and their write keys (SHA-256 of the key; the key itself is shown once).
create table sources (
    name text primary key,
    created_at timestamptz not null,
    settings jsonb not null default '{}'
);
create table write_keys (
    key_hash bytea primary key,
    source text not null references sources (name),
    created_at timestamptz not null,
    revoked_at timestamptz
);
create index write_keys_source on write_keys (source);
create table api_tokens (
    token_hash bytea primary key,
    id text not null unique,
    role text not null,
    created_at timestamptz not null,
    revoked_at timestamptz
);

-- Revisions of the projections: 'building' ones are folded beside the 'live' one and swapped in.
create table revisions (
    revision integer primary key,
    state text not null check (state in ('building', 'live', 'retired', 'failed')),
    cause text not null check (cause in ('initial', 'definition', 'rebuild', 'check')),
    definitions jsonb not null,
    content_hash text not null,
    created_at timestamptz not null,
    done real not null default 0,
    message text
);
create unique index one_live_revision on revisions (state) where state = 'live';

create table progress (
    revision integer not null,
    partition smallint not null,
    epoch bigint not null,
    next_offset bigint not null,
    watermark_us bigint not null default 0,
    primary key (revision, partition)
) with (fillfactor = 10);

-- verdict: 0 applied, 1 duplicate of another partition's, 2 conflict, 3 quarantined, 4 erased
create table register (
    event_key uuid primary key,
    digest uuid not null,
    partition smallint not null,
    "offset" bigint not null,
    signature uuid not null,
    verdict smallint not null
);
create index register_signature on register (signature);
-- Positions of the log that are not applied: copies, conflicts, quarantined. Few; SQL over the log leaves them out.
create table not_applied (
    partition smallint not null,
    "offset" bigint not null,
    event_key uuid,
    verdict smallint not null,
    primary key (partition, "offset")
);

-- Identity (design C6): evidence is what was seen; owners are computed from it.
create table tokens (
    token uuid primary key,
    kind text not null,
    first_us bigint not null,
    first_event uuid not null,
    last_us bigint not null,  -- newest first receipt of the signatures that hold the token
    last_event uuid not null,
    hub boolean not null default false,
    profile_id uuid
);
create index tokens_profile on tokens (profile_id);
create table evidence (
    signature uuid primary key,
    tokens uuid[] not null,
    kinds text[] not null,
    first_us bigint not null,
    first_event uuid not null,
    profile_id uuid
);
create index evidence_profile on evidence (profile_id);
create table evidence_tokens (
    token uuid not null,
    signature uuid not null,
    primary key (token, signature)
);
create table refused_links (
    signature uuid not null,
    token uuid not null,
    reason text not null,
    primary key (signature, token)
);

create table marks (
    id bigint generated always as identity primary key,
    revision integer not null,
    shard smallint not null,
    kind text not null check (kind in ('fold', 'refold', 'identity', 'decide')),
    signatures uuid[] not null,
    newest_us bigint[] not null,
    newest_events uuid[] not null
);

-- The change feed: rows by transaction; the sequencer numbers committed transactions (design C10).
create table feed_batches (
    batch bigint generated always as identity primary key,
    seq bigint unique
);
create index feed_unnumbered on feed_batches (batch) where seq is null;
create table changes (
    batch bigint not null,
    idx integer not null,
    id uuid not null,
    type text not null,
    profile_id uuid not null,
    version bigint not null,
    name text,
    old jsonb,
    new jsonb,
    at_us bigint not null,
    cause text not null,
    cause_event uuid,
    cause_definition text,
    primary key (batch, idx)
);
create index changes_profile on changes (profile_id);
-- Last version of each profile that ended (merged away): should it come back, its versions go on from there.
create table ended_profiles (profile_id uuid primary key, version bigint not null);
create table segment_days (
    segment text not null,
    day date not null,
    entered bigint not null default 0,
    "left" bigint not null default 0,
    primary key (segment, day)
);
create table segment_versions (
    segment text primary key,
    version integer not null,
    content_hash text not null
);

-- Dead letters: bytes sealed under the route key's token or a daily key, never clear.
create table dead_letters (
    id uuid primary key,
    stage text not null,
    rule text not null,
    path text not null,
    reason text not null,
    source text not null,
    received_at timestamptz not null,
    event_id uuid,
    tokens uuid[] not null default '{}',
    seal_key uuid not null,
    sealed bytea not null,
    state text not null default 'open' check (state in ('open', 'retried', 'erased')),
    attempts integer not null default 0
);
create index dead_letters_received on dead_letters (received_at);
create index dead_letters_event on dead_letters (event_id);
create index dead_letters_tokens on dead_letters using gin (tokens);

create table suppressed_events (
    event_id uuid primary key,
    received_at timestamptz not null
);

create table erased_tokens (
    token uuid primary key,
    erased_at timestamptz not null
);
create table jobs (
    id uuid primary key,
    kind text not null,
    step text not null,
    payload jsonb not null,
    created_at timestamptz not null,
    finished_at timestamptz
);

-- Tables of one revision. The profile row is the lock of its profile (design C7).
create function create_revision_tables(revision integer) returns void language plpgsql as $$
begin
    execute format('create table states_r%s (
        signature uuid not null, partition smallint not null, state bytea not null,
        primary key (signature, partition)) with (fillfactor = 70)', revision);
    execute format('create table profiles_r%s (
        profile_id uuid primary key, version bigint not null, state bytea not null,
        decided_us bigint not null, due_us bigint, lagging boolean not null default false,
        first_us bigint, last_us bigint, event_count bigint not null,
        segments bytea not null, lifecycle text not null, risk text not null, points integer not null,
        reasons jsonb not null) with (fillfactor = 70)', revision);
    execute format('create index profiles_r%s_due on profiles_r%s (due_us) where due_us is not null',
        revision, revision);
    execute format('create table memberships_r%s (
        segment smallint not null, profile_id uuid not null, since_us bigint, primary key (segment, profile_id))',
        revision);
    execute format('create index memberships_r%s_profile on memberships_r%s (profile_id)', revision, revision);
end $$;
create function drop_revision_tables(revision integer) returns void language plpgsql as $$
begin
    execute format('drop table if exists states_r%s, profiles_r%s, memberships_r%s', revision, revision, revision);
end $$;
