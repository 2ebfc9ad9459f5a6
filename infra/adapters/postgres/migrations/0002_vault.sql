-- Which copies there are of the vault, and the rotation of its master key.

-- A destination of backups that this server was copied to. `days`: for how long a copy is kept at most.
create table backups (
    destination text primary key,
    days integer not null,
    last_at timestamptz,    -- when the newest whole backup was begun
    took_s real,
    bytes bigint,           -- of the newest, in the destination
    until_at timestamptz,   -- WAL is there up to this instant
    oldest_at timestamptz,  -- of the oldest base or WAL there
    looked_at timestamptz,  -- when what is too old was last removed
    trouble text            -- why the last try failed; null where it did not
);
-- One row while keys are wrapped anew. Either key opens the other, so that a process may come with either.
create table key_rotation (
    one boolean primary key default true check (one),
    next_wrapped bytea not null,      -- the new master key under the old one
    previous_wrapped bytea not null,  -- the old one under the new one
    begun_at timestamptz not null,
    position bytea not null,          -- hashes up to here are done
    done bigint not null,
    total bigint not null,
    pass integer not null,
    seen_from bigint not null default 0  -- transactions before it were over when the last pass began
);
