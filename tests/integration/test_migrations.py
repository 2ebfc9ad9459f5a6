"""A database of an earlier build becomes one of this build, its revisions' tables too."""

import shutil
from hashlib import md5
from pathlib import Path

import msgspec

from infra.adapters.postgres.control import insert_revision
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.migrate import FOLDER, migrate
from projections.definitions.files import load_pack, parse_documents
from schemas.definitions import to_json
from tests.conftest import create_database
from tests.records import START

_COLUMNS = "select column_name, data_type from information_schema.columns where table_name = %s order by 1"


def test_tables_made_before_equal_those_made_now(server: EmbeddedPostgres, tmp_path: Path) -> None:
    dsn = create_database(server, "template1", "of_an_earlier_build")
    for file in sorted(FOLDER.glob("*_main.sql"))[:3]:
        shutil.copy(file, tmp_path)
    assert len(migrate(dsn, "main", tmp_path)) == 3
    definitions = parse_documents(load_pack("retail"))
    content = msgspec.json.decode(to_json(definitions))
    database = Database(dsn)
    with database.transaction() as cursor:
        insert_revision(cursor, 1, "live", "initial", content, definitions.content_hash, START)
        for name, events in (("few", 512), ("many", 513)):  # over the cap of orders, perhaps
            cursor.execute(
                "insert into register select md5(%s || n)::uuid, md5('')::uuid, 0, n, md5(%s)::uuid, 0"
                " from generate_series(1, %s) n",
                (name, name, events),
            )
    assert migrate(dsn, "main") == [file.name for file in sorted(FOLDER.glob("*_main.sql"))[3:]]
    with database.transaction() as cursor:
        insert_revision(cursor, 2, "building", "definition", content, definitions.content_hash, START)
        shapes: list[list[object]] = []
        for revision in (1, 2):
            shapes.append([])
            for table in ("profiles", "laid_off", "order_nodes"):
                cursor.execute(_COLUMNS, (f"{table}_r{revision}",))
                shapes[-1] += cursor.fetchall()
        cursor.execute("select revision, kind, signatures from marks where signatures <> array[md5('few')::uuid]")
        marks = cursor.fetchall()
        cursor.execute("select count(*), max(newest_us[1]) from marks")
        marks += cursor.fetchall()
    database.close()
    assert shapes[0] == shapes[1]
    assert marks == [(1, "refold", [md5(b"many").digest()]), (1, 0)]
    assert ("summed", "bigint") in shapes[0]
