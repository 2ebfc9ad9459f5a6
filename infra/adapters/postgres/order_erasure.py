"""An erasure's part about orders: what was said about them, and states of identifier sets (decision 0037)."""

from collections.abc import Collection, Iterable

from psycopg2.extensions import cursor as Cursor

from infra.adapters.postgres.database import Uuids
from infra.adapters.postgres.figures import PostgresFigureTx
from schemas.store_rows import NO_EVENT


class OrderErasure(PostgresFigureTx):
    """Over an open cursor."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def revisions(self) -> list[int]:
        """Revisions that have tables."""
        self._cursor.execute(
            "select revision from revisions where to_regclass('profiles_r' || revision) is not null order by 1"
        )
        return [int(row[0]) for row in self._cursor.fetchall()]

    def _live(self) -> int | None:
        self._cursor.execute("select revision from revisions where state = 'live'")
        row = self._cursor.fetchone()
        return None if row is None else int(row[0])

    def delete_states(self, identifier_sets: Collection[bytes]) -> None:
        for revision in self.revisions():
            for table in ("states", "laid_off"):
                self._cursor.execute(
                    f"delete from {table}_r{revision} where signature = any(%s)", (Uuids(list(identifier_sets)),)
                )

    def order_routes(self, profile_ids: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        self._cursor.execute(
            "select e.profile_id, s.route from evidence e join order_sets s using (signature)"
            " where e.profile_id = any(%s) and s.route is not null order by 1, 2",
            (Uuids(list(profile_ids)),),
        )
        return [(row[0], row[1]) for row in self._cursor.fetchall()]

    def orders_of(self, identifier_sets: Collection[bytes]) -> list[bytes]:
        those = Uuids(list(identifier_sets))
        self._cursor.execute(
            "select s.order_key from order_sets s where s.own = any(%s) union select order_key from order_sets s"
            " join order_holders h using (order_key) where h.signature = any(%s) order by 1",
            (those, those),
        )
        return [row[0] for row in self._cursor.fetchall()]

    def delete_order_sets(self, senders: Collection[bytes]) -> set[bytes]:
        self._cursor.execute(
            "delete from order_sets where own = any(%s) returning signature, own, route", (Uuids(list(senders)),)
        )
        rows = self._cursor.fetchall()
        if not rows:
            return set()
        names = [row[0] for row in rows]
        self.delete_states(names)
        self._cursor.execute("delete from evidence where signature = any(%s) returning profile_id", (Uuids(names),))
        owners = {row[0] for row in self._cursor.fetchall() if row[0] is not None}
        self.add_nobody({row[1] for row in rows if row[2] is not None})
        return owners

    def mark_orders(self, order_keys: Collection[bytes]) -> None:
        live = self._live()
        if live is not None:
            self._mark(live, "order", order_keys)

    def mark_profiles(self, profile_ids: Collection[bytes]) -> None:
        self._cursor.execute(
            "select distinct on (profile_id) signature from evidence where profile_id = any(%s)"
            " order by profile_id, signature",
            (Uuids(list(profile_ids)),),
        )
        sets = [row[0] for row in self._cursor.fetchall()]
        self._cursor.execute("select revision from revisions where state in ('live', 'building') order by 1")
        for (revision,) in self._cursor.fetchall():
            self._mark(int(revision), "decide", sets)

    def _mark(self, revision: int, kind: str, names: Collection[bytes]) -> None:
        if names:
            ordered = sorted(names)
            self._cursor.execute(
                "insert into marks (revision, shard, kind, signatures, newest_us, newest_events)"
                " values (%s, 0, %s, %s, %s, %s)",
                (revision, kind, Uuids(ordered), [0] * len(ordered), Uuids([NO_EVENT] * len(ordered))),
            )
