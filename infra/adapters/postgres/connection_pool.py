"""This process's connections: one bounded pool per database, which waits instead of opening more.

`Database` borrows from it for a transaction or a statement. Whatever needs its own session (LISTEN, a lock or a setting
that outlives a transaction, temporary tables, a snapshot) has a `Dedicated` connection beside the pool, which is
counted here. Why and how many: docs/decisions/0014-connections.md.
"""

import os
import threading
import time
from collections import deque
from enum import IntEnum
from typing import Final, NamedTuple
from weakref import WeakSet

from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from infra.adapters.postgres.connect import PooledConnection, connect
from schemas.errors import ConnectionsInUse

IDLE_S: Final = 60.0  # a connection idle for this long is closed; its backend holds 5 to 15 MB
OLDEST_S: Final = 1_800.0  # a backend's caches grow with every table and plan it has seen
RETRY_S: Final = 0.1  # between two attempts while PostgreSQL itself has no connection left


class Lane(IntEnum):
    """Who borrows. When a connection becomes free, the lowest goes first."""

    NESTED = 0  # a thread that already holds one: making it wait could mean that one is never returned
    WORK = 1  # accepted or decided data that must be written: log, vault, dead letters, progress, erasure
    READ = 2


_NESTED: Final = Lane.NESTED  # an enum member is slower to look up, and every statement comes through here


class Limits(NamedTuple):
    """For one pool. `kept`: how many of `size` READ may never have; one of them is reserved for NESTED."""

    size: int = 8
    kept: int = 3
    wait_s: float = 5.0


class Figures(NamedTuple):
    """One pool now; `refused`: how often no connection became free in time, since the start."""

    database: str
    size: int
    in_use: int
    idle: int
    waiting: int
    dedicated: int
    refused: int


class _Waiter:
    __slots__ = ("granted", "woken")

    def __init__(self) -> None:
        self.granted = False
        self.woken = threading.Event()


class _Held(threading.local):
    """How many pooled connections this thread holds, from any pool: a circular wait may span two."""

    count = 0


_held: Final = _Held()


class Pool:
    """Any thread. A permit is taken first (`size` limits them), then an idle connection, or a new one."""

    def __init__(self, dsn: str, limits: Limits = Limits()) -> None:  # noqa: B008  # a tuple of constants
        self._dsn = dsn
        self._limits = limits
        self._label = "main"
        self._name = "touchfold pool"
        self.start_anew()

    def start_anew(self) -> None:
        """Forget everything, close nothing: in a child after a fork the sockets belong to the parent."""
        self._lock = threading.Lock()
        self._sweep_at = threading.Condition(self._lock)
        self._in_use = [0, 0, 0]  # by lane
        self._lent = 0  # their sum
        self._idle: list[PooledConnection] = []  # the most recently returned is taken first
        self._waiting: tuple[deque[_Waiter], ...] = (deque(), deque(), deque())
        self._queued = 0  # the sum of their lengths
        self._users: WeakSet[object] = WeakSet()
        self._dedicated: WeakSet[object] = WeakSet()
        self._refused = 0
        self._sweeper: threading.Thread | None = None

    def limit(self, limits: Limits, label: str, name: str) -> None:
        """Set the limits; `label`: the database in figures and errors, `name`: shown in pg_stat_activity."""
        with self._lock:
            self._limits, self._label, self._name = limits, label, name

    def figures(self) -> Figures:
        with self._lock:
            open_now = sum(1 for each in self._dedicated if getattr(each, "is_open", False))
            in_use, idle = self._lent, len(self._idle)
            return Figures(self._label, self._limits.size, in_use, idle, self._queued, open_now, self._refused)

    # --- users -----------------------------------------------------------------------------------------------------

    def attach(self, user: object) -> None:
        with self._lock:
            self._users.add(user)

    def attach_dedicated(self, user: object) -> None:
        """A `Dedicated` connection, for the figures."""
        with self._lock:
            self._dedicated.add(user)

    def detach(self, user: object) -> None:
        """Idle connections close with the last user: a finished command leaves none behind."""
        with self._lock:
            self._users.discard(user)
            gone = [] if len(self._users) else self._take_idle()
        _close(gone)

    def _take_idle(self) -> list[PooledConnection]:
        idle, self._idle = self._idle, []
        self._sweep_at.notify()
        return idle

    # --- borrowing -------------------------------------------------------------------------------------------------

    def lend(self, lane: Lane) -> tuple[PooledConnection, Lane]:
        """A connection between two transactions, and the lane it was lent in; pass both to `take_back` in this thread.

        Raises ConnectionsInUse if none became free within `wait_s`, StoreUnavailable.
        """
        if _held.count:
            lane = _NESTED
        connection = self._at_once(lane) or self._borrow(lane)
        _held.count += 1
        return connection, lane

    def take_back(self, connection: PooledConnection, lane: Lane) -> None:
        """Whether it is kept depends on the state it is in."""
        _held.count -= 1
        now = time.monotonic()
        broken = bool(connection.closed) or connection.get_transaction_status() != TRANSACTION_STATUS_IDLE
        gone: list[PooledConnection] = []
        with self._lock:
            if broken:  # most likely the others are broken too, and each would fail somebody once
                gone = [connection, *self._take_idle()]
            elif not self._users or now - connection.made_at > OLDEST_S:
                gone = [connection]
            else:
                connection.idle_at = now
                self._idle.append(connection)
                if self._sweeper is None:
                    self._start_sweeper()
            self._release(lane)
        if gone:
            _close(gone)

    def _at_once(self, lane: Lane) -> PooledConnection | None:
        """An idle connection if nobody is waiting: what nearly every block gets. None: see `_borrow`."""
        with self._lock:
            if self._queued or not self._idle or not self._is_room(lane) or not self._idle[-1].is_quiet():
                return None
            self._count(lane, 1)
            return self._idle.pop()

    def _borrow(self, lane: Lane) -> PooledConnection:
        deadline = time.monotonic() + self._limits.wait_s
        self._permit(lane, deadline)
        try:
            while True:
                with self._lock:
                    connection = self._idle.pop() if self._idle else None
                if connection is None:
                    return self._connect(deadline)
                if not connection.closed and connection.is_quiet():
                    return connection
                _close([connection])  # the server ended it: a restart, or an administrator
        except BaseException:
            with self._lock:
                self._release(lane)
            raise

    def _permit(self, lane: Lane, deadline: float) -> None:
        with self._lock:
            if self._is_room(lane) and not any(self._waiting[: lane + 1]):
                self._count(lane, 1)
                return
            waiter = _Waiter()
            self._waiting[lane].append(waiter)
            self._queued += 1
        try:
            waiter.woken.wait(max(0.0, deadline - time.monotonic()))
        except BaseException:  # Ctrl-C
            with self._lock:
                if waiter.granted:
                    self._release(lane)
                else:
                    self._leave_queue(lane, waiter)
            raise
        with self._lock:
            if waiter.granted:
                return
            self._leave_queue(lane, waiter)
            self._refused += 1
            limits, label = self._limits, self._label
        raise ConnectionsInUse(
            f"all {limits.size} connections of this process to the {label} database are in use, and none became free "
            f"within {limits.wait_s:g} s: try again; if it persists, spread the load over more processes "
            "(TOUCHFOLD_DOORS) or look for slow requests",
            retry_after_s=1,
        )

    def _leave_queue(self, lane: Lane, waiter: _Waiter) -> None:
        self._waiting[lane].remove(waiter)
        self._queued -= 1

    def _count(self, lane: Lane, change: int) -> None:
        self._in_use[lane] += change
        self._lent += change

    def _is_room(self, lane: Lane) -> bool:
        size, kept, _ = self._limits
        if lane is _NESTED:
            return self._lent < size
        if self._lent >= size - 1:
            return False
        return lane is Lane.WORK or self._in_use[lane] < size - kept

    def _connect(self, deadline: float) -> PooledConnection:
        """Waits for PostgreSQL to have a free connection, as for one of our own."""
        while True:
            try:
                connection = connect(self._dsn, self._name)
                break
            except ConnectionsInUse:
                if time.monotonic() + RETRY_S > deadline:
                    with self._lock:
                        self._refused += 1
                    raise
                threading.Event().wait(RETRY_S)
        connection.made_at = time.monotonic()
        return connection

    def _release(self, lane: Lane) -> None:
        """Pass the permit on to whoever has waited longest in the first lane that has room. Locked."""
        self._count(lane, -1)
        if not self._queued:
            return
        for next_lane in Lane:
            waiting = self._waiting[next_lane]
            while waiting and self._is_room(next_lane):
                waiter = waiting.popleft()
                self._queued -= 1
                self._count(next_lane, 1)
                waiter.granted = True
                waiter.woken.set()

    # --- idle ones -------------------------------------------------------------------------------------------------

    def _start_sweeper(self) -> None:
        self._sweeper = threading.Thread(target=self._sweep, name="idle connections", daemon=True)
        self._sweeper.start()

    def _sweep(self) -> None:
        """Close connections idle for `IDLE_S`; ends when none are left."""
        while True:
            with self._lock:
                if not self._idle:
                    self._sweeper = None
                    return
                self._sweep_at.wait(max(0.01, self._idle[0].idle_at + IDLE_S - time.monotonic()))
                due = time.monotonic() - IDLE_S
                gone = [each for each in self._idle if each.idle_at <= due]
                self._idle = [each for each in self._idle if each.idle_at > due]
            _close(gone)


def _close(connections: list[PooledConnection]) -> None:
    for each in connections:
        each.close()  # takes leave of the server; never raises, whatever the state of the socket


_pools: Final[dict[str, Pool]] = {}
_pools_lock = threading.Lock()


def pool_of(dsn: str) -> Pool:
    """The process's one pool to a database."""
    found = _pools.get(dsn)
    if found is None:
        with _pools_lock:
            found = _pools.setdefault(dsn, Pool(dsn))
    return found


def pool_figures() -> list[Figures]:
    """Figures of every pool of this process."""
    with _pools_lock:
        pools = list(_pools.values())
    return [pool.figures() for pool in pools]


def _after_fork() -> None:
    global _pools_lock  # noqa: PLW0603  # the parent's may be locked forever
    _pools_lock = threading.Lock()
    for pool in _pools.values():
        pool.start_anew()


os.register_at_fork(after_in_child=_after_fork)
