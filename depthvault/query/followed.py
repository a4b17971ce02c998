"""One writer of an exchange, followed: what it adds to its journals, decoded by channel."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from depthvault.clock import EPOCH
from depthvault.exchanges.base import Exchange
from depthvault.journal import Batch, Damage, Follower, Kind, Row
from depthvault.journal.reader import open_source, record_at, scan
from depthvault.journal.record import decode
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.query.replay import Notice
from depthvault.seal.decoding import EVENTS, Piece, WindowDecoder
from depthvault.seal.spans import Window

DAMAGE = "damage"
"""Kind of the notice about bytes of a journal that could not be read."""

NEVER = 2**62
"""µs since the epoch, later than anything."""

_ALWAYS = Period(EPOCH, timedelta(days=250 * 365))
_WHOLE = Window(_ALWAYS, 0, _ALWAYS.end_ns)
_GRACE = timedelta(0)
_KINDS = ("sequence", "wall_ns", "kind")
_ROWS = 20_000  # that one look reads at most, so that a slow reader's memory stays bounded


@dataclass(slots=True)
class _File:
    """One journal being read: its decoder, and which stream names have anything that is wanted."""

    decoder: WindowDecoder
    wanted: dict[str, bool] = field(default_factory=dict)


class FollowedWriter:
    """One writer of an exchange, followed. Its rows come decoded, by channel."""

    def __init__(
        self, layout: Layout, venue: Exchange, name: str, channels: frozenset[str], symbols: frozenset[str],
        positions: dict[Path, int | None], learned: dict[Path, list[Row]],
    ) -> None:  # fmt: skip
        self.exchange, self.name = venue.name, name
        self.shown = 0
        """When it received the latest row that was read, µs."""
        self.looked = 0
        """When all that it had written was read last, µs."""
        self.delivered = -NEVER
        """When it received the last wanted row, µs."""
        self._venue, self._channels, self._symbols = venue, channels, symbols
        self._folder = layout.journals / venue.name / name
        self._follower = Follower(layout, venue.name, name, positions=positions)
        self._files: dict[Path, _File] = {}
        self._changed, self._looked = -1, -1
        for path, rows in learned.items():
            file = self._file(path)
            for row in rows:
                list(file.decoder.learn(row))

    @property
    def lives(self) -> bool:
        """Whether a journal of it is being written, or about to be begun."""
        return bool(self._follower.files) or self._follower.last_stop == "rotate"

    def told(self, window: int, slack: int = 0) -> int:
        """Up to when, µs, it has told all that it received; after `window` nobody waits for what it may yet tell."""
        return max(self.shown - slack, 0 if self.behind else self.looked - window)

    @property
    def behind(self) -> bool:
        """Whether its journals hold more than has been read."""
        return self._follower.behind

    def _file(self, path: Path) -> _File:
        if path not in self._files:
            decoder = WindowDecoder(self._venue, self.name, _WHOLE, _GRACE, self._channels | {EVENTS})
            decoder.begin_journal(path.name)
            self._files[path] = _File(decoder)
        return self._files[path]

    def read(self) -> tuple[list[Piece], list[Notice]]:
        """What is new: rows as they were received, and what could not be read."""
        if not self._follower.files and not self._has_changed():
            return [], []
        pieces: list[Piece] = []
        notices = []
        touched: dict[Path, _File] = {}
        for part in self._follower.poll(_ROWS):
            if isinstance(part, Damage):
                notices.append(self._damage(part))
                continue
            file = touched[part.path] = self._file(part.path)
            pieces += file.decoder.add(self._of_interest(part, file))
            self.shown = max(self.shown, pc.max(part.rows.column("wall_ns")).as_py() // 1000)
        for file in touched.values():
            pieces += file.decoder.end_journal()
        open_files = set(self._follower.files)
        self._files = {path: file for path, file in self._files.items() if path in open_files}
        return pieces, notices

    def _has_changed(self) -> bool:
        """Whether the folder may hold a file that has not been seen; REST writers have thousands."""
        try:
            changed = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.time_ns()
        if changed == self._changed and self._looked - changed > 1_000_000_000:
            return False
        self._changed, self._looked = changed, now
        return True

    def _of_interest(self, batch: Batch, file: _File) -> pa.RecordBatch:
        """Without frames of streams that nobody asked for, so that they are not decoded."""
        rows: pa.RecordBatch = batch.rows
        if pc.any(pc.equal(rows.column("kind"), Kind.CATALOGUE.value)).as_py():
            file.wanted.clear()  # names may mean other markets from here on
            return rows
        named = rows.column("stream").dictionary_encode()
        keeps = [self._wants(name, file) for name in named.dictionary.to_pylist()]
        if all(keeps):
            return rows
        frames = pc.equal(rows.column("kind"), Kind.FRAME.value)
        return rows.filter(pc.or_(pc.invert(frames), pc.take(pa.array(keeps), named.indices)))

    def _wants(self, name: str, file: _File) -> bool:
        if name not in file.wanted:
            channel, symbol = self._venue.channel_of(name, file.decoder.markets) if name else ("", "")
            derived = self._venue.derived.get(channel, ())
            # A frame without a name is looked into; streams of the whole market name no symbol.
            file.wanted[name] = not name or (
                not self._channels.isdisjoint((channel, *derived)) and (not symbol or symbol in self._symbols)
            )
        return file.wanted[name]

    def _damage(self, damage: Damage) -> Notice:
        detail = {
            "path": str(damage.path), "start": damage.start, "end": damage.end, "reason": damage.reason,
            "lost_rows": damage.lost_rows,
        }  # fmt: skip
        return Notice(self.exchange, self.shown, DAMAGE, self.name, None, "", detail)

    def close(self) -> None:
        self._follower.close()


def find(path: Path, end: int, since_ns: int) -> tuple[int, list[Row]]:
    """The first record before `end` with a row of `since_ns` or later, else `end`; and what the rows before it tell."""
    told: list[Row] = []
    with open_source(path) as source:
        for part in scan(source, path, stop=end, columns=_KINDS):
            if isinstance(part, Damage):
                continue  # what lies before the seam is the past's to tell
            if pc.max(part.rows.column("wall_ns")).as_py() >= since_ns:
                return part.start, told
            if set(part.rows.column("kind").unique().to_pylist()) <= {Kind.FRAME.value}:
                continue
            payload, _ = record_at(source, part.start)
            batch = decode(payload)
            for index, kind in enumerate(batch.column("kind").to_pylist()):
                if kind in (Kind.CATALOGUE, Kind.SENT):
                    told.append(Row(*(column[index].as_py() for column in batch.columns)))
    return end, told
