"""The weight budget: how much of a venue's REST limit all processes of this host use together.

Venues count weight by address and UTC minute, so the account is a small SQLite file that every process shares
(collectors, Airflow's tasks, people at the command line). Weight is reserved, atomically, before a request is sent;
the answer's used-weight header corrects the account upwards (others may share our address); a ban or a pause binds
everybody. Nobody uses more than `cap` of the limit, and whatever is not urgent leaves room for what is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from depthvault.clock import Clock, SystemClock
from depthvault.durable import make_directories
from depthvault.errors import RestError

MINUTE_NS = 60_000_000_000
TURN_NS = 1_000_000_000
"""How far the venue's minutes and ours may be apart. In the first second of ours the venue may still count the one
before: what is sent then must fit into either, and a header that is read then is not believed."""
_KEEP_MINUTES = 120
_SCHEMA = """
CREATE TABLE IF NOT EXISTS minutes (
    host TEXT NOT NULL, minute INTEGER NOT NULL,
    reserved INTEGER NOT NULL DEFAULT 0,  -- weight granted in this minute
    settled INTEGER NOT NULL DEFAULT 0,   -- of it, weight whose answer has come: the header counts it
    observed INTEGER NOT NULL DEFAULT 0,  -- the largest used-weight header
    PRIMARY KEY (host, minute)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hosts (
    host TEXT PRIMARY KEY, until_ns INTEGER NOT NULL, reason TEXT NOT NULL
) WITHOUT ROWID;
"""


class Priority(IntEnum):
    """Who goes first when weight is short."""

    RESYNC = 0  # a book that is not known: all of the cap
    CATALOGUE = 1  # what is listed: all of the cap
    PERIODIC = 2  # cadenced snapshots and polls: leaves a share for the above
    BACKFILL = 3  # history: half of the cap


_SHARE = {Priority.RESYNC: 1.0, Priority.CATALOGUE: 1.0, Priority.PERIODIC: 0.85, Priority.BACKFILL: 0.5}


@dataclass(frozen=True, slots=True)
class Grant:
    """An answer to `reserve`. wait: seconds until it is worth asking again, 0 when granted. banned: why it is not."""

    granted: bool
    host: str
    minute: int
    weight: int
    wait: float = 0.0
    banned: str = ""
    until_ns: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """The account of one host and minute."""

    used: int
    reserved: int
    observed: int
    banned_until_ns: int
    reason: str


class WeightBudget:
    """The shared account in `path`. Blocking calls of well under a millisecond; safe over threads and processes.

    Whatever is asked of an account that cannot be kept (a full disk) raises RestError: nobody asks the venue then.
    """

    def __init__(self, path: Path, *, cap: float = 0.8, clock: Clock | None = None) -> None:
        self._path = path
        self.cap = cap
        self._clock = clock or SystemClock()
        make_directories(path.parent)
        with self._open() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.executescript(_SCHEMA)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # One connection a call: nothing is shared between threads, forks or after an unclean end.
        try:
            with closing(sqlite3.connect(self._path, timeout=10, isolation_level=None)) as database:
                database.execute("PRAGMA synchronous=NORMAL")
                yield database
        except sqlite3.Error as error:
            raise RestError(f"{self._path}: the account of weight cannot be kept: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    def reserve(self, host: str, limit: int, weight: int, priority: Priority = Priority.PERIODIC) -> Grant:
        """Reserve `weight` of `limit` a minute at `host`, or say how long to wait.

        A request heavier than its whole share is granted when the minute is still empty, so that it can ever be sent.
        """
        now = self._clock.wall_ns()
        minute = now // MINUTE_NS
        rest = ((minute + 1) * MINUTE_NS - now) / 1e9
        with self._transaction() as database:
            ban = database.execute("SELECT until_ns, reason FROM hosts WHERE host = ?", (host,)).fetchone()
            if ban is not None and ban[0] > now:
                return Grant(False, host, minute, weight, (ban[0] - now) / 1e9, ban[1], ban[0])
            used = self._used(database, host, minute)
            most = limit * self.cap * _SHARE[priority]
            if used and used + weight > most:
                return Grant(False, host, minute, weight, rest)
            turning = minute * MINUTE_NS + TURN_NS - now
            if turning > 0 and (before := self._used(database, host, minute - 1)) and before + used + weight > most:
                return Grant(False, host, minute, weight, turning / 1e9)
            database.execute(
                "INSERT INTO minutes (host, minute, reserved) VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET reserved = reserved + excluded.reserved",
                (host, minute, weight),
            )
            database.execute("DELETE FROM minutes WHERE minute < ?", (minute - _KEEP_MINUTES,))
        return Grant(True, host, minute, weight)

    @staticmethod
    def _used(database: sqlite3.Connection, host: str, minute: int) -> int:
        row = database.execute(
            "SELECT reserved, settled, observed FROM minutes WHERE host = ? AND minute = ?", (host, minute)
        ).fetchone()
        if row is None:
            return 0
        reserved, settled, observed = row
        # The header counts what was answered; what is under way comes on top.
        return int(max(reserved, observed + reserved - settled))

    def settle(self, grant: Grant, used: int | None) -> None:
        """An answer to the request of `grant` has come; `used`: its used-weight header, None without one.

        Around the turn of a minute a header may count either: then it is not believed. The weight of an answer that
        comes in another minute than it was asked in is put on both.
        """
        now = self._clock.wall_ns()
        now_minute = now // MINUTE_NS
        believed = (used or 0) if now % MINUTE_NS >= TURN_NS else 0
        with self._transaction() as database:
            if now_minute == grant.minute:
                database.execute(
                    "UPDATE minutes SET settled = settled + ?, observed = max(observed, ?) "
                    "WHERE host = ? AND minute = ?",
                    (grant.weight, believed, grant.host, grant.minute),
                )
            else:
                database.execute(
                    "INSERT INTO minutes (host, minute, reserved) VALUES (?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET reserved = reserved + excluded.reserved",
                    (grant.host, now_minute, grant.weight),
                )

    def ban(self, host: str, until_ns: int, reason: str) -> None:
        """Nobody may ask `host` before `until_ns` (wall clock). A longer ban that stands already is kept."""
        with self._transaction() as database:
            database.execute(
                "INSERT INTO hosts (host, until_ns, reason) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "
                "reason = CASE WHEN excluded.until_ns > until_ns THEN excluded.reason ELSE reason END, "
                "until_ns = max(until_ns, excluded.until_ns)",
                (host, until_ns, reason),
            )

    def usage(self, host: str) -> Usage:
        """The running minute's account."""
        now = self._clock.wall_ns()
        minute = now // MINUTE_NS
        with self._open() as database:
            row = database.execute(
                "SELECT reserved, observed FROM minutes WHERE host = ? AND minute = ?", (host, minute)
            ).fetchone()
            ban = database.execute("SELECT until_ns, reason FROM hosts WHERE host = ?", (host,)).fetchone()
            used = self._used(database, host, minute)
        active = ban is not None and ban[0] > now
        reserved, observed = row or (0, 0)
        return Usage(used, reserved, observed, ban[0] if active else 0, ban[1] if active else "")
