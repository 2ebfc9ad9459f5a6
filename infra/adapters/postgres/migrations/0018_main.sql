-- Ids that named nobody (placeholders, impossible numbers), counted by the rule that blocked them. The value stands there
-- only where it is one of the product's own list, and so says nothing about a person; else it is ''.
create table blocked_identifiers (
    source text not null,
    kind text not null,
    rule text not null,
    value text not null,
    events bigint not null,
    last_at timestamptz not null,
    primary key (source, kind, rule, value)
);
-- Tokens of values that name nobody, made before that was known: they link nothing. `defined`: by the definitions, and no
-- longer when these no longer block them.
create table unnamed_tokens (
    token uuid primary key,
    kind text not null,
    defined boolean not null
);
