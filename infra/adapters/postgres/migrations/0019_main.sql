-- A refund, cancel or update follows its order (decision 0037): who has an order, and what was said about one.

create table order_holders (
    order_key uuid not null,
    source bigint not null,
    signature uuid not null,
    primary key (order_key, source, signature)
);
create index order_holders_signature on order_holders (signature);
-- `own`: the sender's signature; `route`: the token that seals an event which names nobody; `matched`: whether somebody
-- has the order, null until decided. The owner stands in evidence, under the same signature.
create table order_sets (
    signature uuid primary key,
    order_key uuid not null,
    source bigint not null,
    own uuid not null,
    route uuid,
    matched boolean
) with (fillfactor = 80);
create index order_sets_order on order_sets (order_key);
create index order_sets_own on order_sets (own);
create index order_sets_unmatched on order_sets (signature) where not matched;
alter table marks drop constraint marks_kind_check;
alter table marks add constraint marks_kind_check check (kind in ('fold', 'refold', 'identity', 'decide', 'order'));
