-- The suppressed, by hash alone (decision 0027): no time and no order of coming, by which a row could be joined to what
-- was erased then. Written anew, for a dropped column stays in the pages of its table.

create temporary table kept on commit drop as select hash from suppressed;
truncate suppressed;
alter table suppressed drop column since, add column mark uuid not null;  -- what the hashes of one person share
insert into suppressed (hash, mark) select hash, gen_random_uuid() from kept order by hash;
