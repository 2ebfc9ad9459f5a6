-- A receipt has its event's place in what arrived together (decision 0032): 0 for all that was received before.

alter table evidence add column first_n integer not null default 0;
alter table tokens add column first_n integer not null default 0, add column last_n integer not null default 0;
