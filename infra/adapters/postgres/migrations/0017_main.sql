-- A further address is no longer kept from the person whom a higher-ranked identifier names, and a login or card seen
-- with many addresses is shared (decision 0034). What was decided otherwise is decided again: identifier sets with a
-- link that a limit refused, and those of logins and cards that are shared from now on.
insert into marks (revision, shard, kind, signatures, newest_us, newest_events)
select revision, 0, 'identity', array_agg(signature), array_agg(0::bigint),
    array_agg(('0' || repeat('0', 31))::uuid)
from (
    select r.revision, s.signature, (row_number() over (partition by r.revision order by s.signature) - 1) / 100 as part
    from revisions r, (
        select signature from refused_links where reason like 'limit:%'
        union
        select h.signature from evidence_tokens h join (
            select t.token from tokens t
            join evidence_tokens own on own.token = t.token
            join evidence_tokens beside on beside.signature = own.signature and beside.token <> own.token
            join tokens o on o.token = beside.token
            where (t.kind, o.kind) in (('user_id', 'user_id'), ('user_id', 'loyalty_card'), ('user_id', 'email'),
                ('user_id', 'phone'), ('loyalty_card', 'email'), ('loyalty_card', 'phone'))
            group by t.token, t.kind, o.kind
            having count(distinct o.token) > case when o.kind = 'user_id' then 5 else 10 end) crowded using (token)) s
    where r.state = 'live') parts
group by revision, part;
