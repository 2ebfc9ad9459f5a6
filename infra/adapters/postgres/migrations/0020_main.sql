-- E-mail addresses of builds before version 2 of the forms that may stand for two people's (decision 0033), noted when
-- the vault's rows got the newer forms. Evidence first received after `until_us` is by these.
create table ambiguous_tokens (
    token uuid primary key,
    until_us bigint not null
);
