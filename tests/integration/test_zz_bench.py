from tests.integration.test_sql import *
from infra.adapters.postgres import *
import time
def test_bench(data):
    definitions = parse_documents([("test.yaml", DEFINITIONS)])
    fold = compile_fold(definitions, time_zone="UTC", currency="EUR")
    st = fold.new_state()
    for i in range(8): fold.apply(fold.decode(encode(record(i,'a',order_id=f'{i}',revenue='1.5'))),st,None)
    p=fold.pack(st)
    with psycopg2.connect(data.dsn) as c, c.cursor() as cur:
        cur.execute("insert into profiles_r1 select gen_random_uuid(),1,%s,0,null,false,1,2,8,'\\x01','active','low',0,'[[\"a\",1]]' from generate_series(1,100000)",(p,))
        cur.execute("insert into evidence select gen_random_uuid(), array[]::uuid[], array[]::text[],0,gen_random_uuid(),gen_random_uuid() from generate_series(1,100000)")
        cur.execute("insert into memberships_r1 select 0, profile_id, 1 from profiles_r1")
    c.close()
    lines=[{"product_id":str(k),"quantity":1,"amount":"2.50"} for k in range(10)]
    for s in range(0,150000,10000):
        data.log.append(pending([record(i,f'c{i%2500}',order_id=f'{i}',revenue='25',products=lines) for i in range(s,s+10000)]))
    apply_until(data.dsn,data.log.ends())
    t=time.time(); data.archiver().run_once(); print('archive 150k',time.time()-t, len(data.archive.files()), sum(e.bytes for e in data.archive.files())//1e6)
    import psutil
    for q in ["select 1","select lifecycle,count(*) from profiles group by 1","select avg(lifetime_revenue) from profiles","select count(*) from memberships","select count(*),sum(revenue) from events","select count(distinct profile_id) from events","select count(*),sum(amount) from order_lines","select sum(revenue) from orders", "select properties->>'$.order_id', count(*) from events group by 1 order by 2 desc limit 3", "select * from events"]:
        t=time.time(); r=data.ask(q); print(q, round(time.time()-t,2), r.table.num_rows)
