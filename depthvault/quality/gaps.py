"""The gap ledger's core: where a chain of ids breaks, and what became of the hole. Pure: arrays in, rows out.

A break is a step between two neighbours of a chain over ids that no event holds. One break is one row. The first
event ever is no break (books start somewhere), and neither are overlapping batches: nothing is missing there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pyarrow as pa

from depthvault.archive.manifest import Tail
from depthvault.archive.stitch import REFILL, Bools, Ints, chain_starts, codes, column
from depthvault.schemas import Channel

NO_ID = np.iinfo(np.int64).min
_DAY_US = 86_400_000_000
STREAMED = "~"
"""The name, among the tails, of where the stitched chain would stand without refilled rows. Only while that is behind:
a hole that is refilled over several periods is told where its stream came back, from where it broke off."""


@dataclass(frozen=True, slots=True)
class Chain:
    """One symbol's events in chain order. All arrays have the same length.

    start: the id that the event follows; final: its last id; named: the id that it names as its beginning (`pu`,
    `begin_nonce`, else the first id); received: µs since the epoch; snapshot: in-band snapshots, which hold every
    change up to `final`.
    """

    start: Ints
    final: Ints
    named: Ints
    received: Ints
    epoch: Ints
    snapshot: Bools

    def __len__(self) -> int:
        return len(self.final)

    def where(self, mask: Bools) -> Chain:
        """The events that `mask` selects."""
        return Chain(*(getattr(self, name)[mask] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Break:
    """A hole: ids after `last_id` up to where the event that names `first_id` begins. Times in µs, receipt.

    start: the id that the event after the hole follows. restarted: the venue began its ids anew, so that nothing can
    be said of what lies between.
    """

    last_id: int
    first_id: int
    start: int
    start_us: int
    end_us: int
    restarted: bool = False

    def overlaps(self, other: Break) -> bool:
        """Whether the two holes share ids, or are the same restart."""
        if self.restarted or other.restarted:
            return self.restarted == other.restarted and self.first_id == other.first_id
        return self.last_id < other.start and other.last_id < self.start


@dataclass(frozen=True, slots=True)
class Gap:
    """A row of the ledger before its cause is known. `instance` is empty when no writer had the events."""

    instance: str
    hole: Break
    status: str
    writers: dict[str, Break] = field(default_factory=dict)


def chain_of(table: pa.Table, channel: Channel) -> Chain | None:
    """The chain that `table` (one symbol, chain order) holds; None where the channel's rule is not one of ids."""
    count = table.num_rows
    received = codes(column(table, "received_time"))
    if channel.continuity == "update_id":
        start, final = chain_starts(table)
        previous = codes(column(table, "prev_final_update_id"))
        snapshot = column(table, "is_snapshot").to_numpy(zero_copy_only=False)
        first = codes(column(table, "first_update_id"))
        named = np.where(snapshot, final, np.where(previous == NO_ID, first, previous))
        return Chain(start, final, named, received, codes(column(table, "epoch")), snapshot)
    if channel.continuity == "trade_id":
        assert channel.id_column is not None
        ids = codes(column(table, channel.id_column))
        return Chain(ids - 1, ids, ids, received, np.zeros(count, np.int64), np.zeros(count, np.bool_))
    return None


def breaks(chain: Chain, tail: Tail | None) -> list[Break]:
    """The holes of `chain`, also between `tail` (where it stood before) and its first event."""
    found: list[Break] = []
    for epoch in np.unique(chain.epoch):
        part = chain.where(chain.epoch == epoch)
        if tail is not None and tail.final_id is not None and tail.epoch != epoch:
            if tail.epoch < epoch:
                named, start, received = int(part.named[0]), int(part.start[0]), int(part.received[0])
                found.append(Break(tail.final_id, named, start, tail.received_us, received, restarted=True))
            tail = None
        found += _breaks_of_epoch(part, tail)
        tail = tail_of(part, tail)
    return found


def _breaks_of_epoch(chain: Chain, tail: Tail | None) -> list[Break]:
    start_reach, at = NO_ID, 0
    pending: list[tuple[int, int]] = []
    if tail is not None and tail.final_id is not None:
        start_reach, at = tail.final_id, tail.received_us
        pending = [] if tail.snapshot_id is None else [(tail.snapshot_id, tail.snapshot_us or at)]
    events = np.flatnonzero(~chain.snapshot)
    # What the events before each one reach; an event that starts at or before it leaves no hole.
    reaches = np.maximum.accumulate(np.concatenate((np.array([start_reach], np.int64), chain.final[events])))[:-1]
    found: list[Break] = []
    for place in (int(value) for value in np.flatnonzero(chain.start[events] > reaches)):
        row = int(events[place])
        reach, steps = int(reaches[place]), pending
        if place:
            previous = int(events[place - 1])
            at, steps = int(chain.received[previous]), []
        between = range(int(events[place - 1]) + 1 if place else 0, row)
        for snapshot_id, received in [
            *steps,
            *((int(chain.final[snap]), int(chain.received[snap])) for snap in between),
        ]:
            if reach != NO_ID and snapshot_id > reach:
                found.append(Break(reach, snapshot_id, snapshot_id, at, received))
            if snapshot_id >= reach:
                reach, at = snapshot_id, received
        if reach != NO_ID and chain.start[row] > reach:
            found.append(Break(reach, int(chain.named[row]), int(chain.start[row]), at, int(chain.received[row])))
    return found


def tail_of(chain: Chain, tail: Tail | None) -> Tail | None:
    """Where the chain stands after its last event, given where it stood before."""
    if not len(chain):
        return tail
    epoch = int(chain.epoch[-1])
    chain = chain.where(chain.epoch == epoch)
    if tail is not None and (tail.final_id is None or tail.epoch != epoch):
        tail = None
    events, snapshots = chain.where(~chain.snapshot), chain.where(chain.snapshot)
    if len(events):
        reach, received = int(events.final.max()), int(events.received[-1])
        if tail is not None and tail.final_id is not None:
            reach = max(reach, tail.final_id)
    elif tail is not None and tail.final_id is not None:
        reach, received = tail.final_id, tail.received_us
    else:
        reach, received = int(snapshots.final[-1]), int(snapshots.received[-1])
    last, last_us = NO_ID, None
    if len(snapshots):
        place = int(np.argmax(snapshots.final))
        last, last_us = int(snapshots.final[place]), int(snapshots.received[place])
    if tail is not None and tail.snapshot_id is not None and tail.snapshot_id >= last:
        last, last_us = tail.snapshot_id, tail.snapshot_us
    return Tail(received, reach, epoch, last, last_us) if last > reach else Tail(received, reach, epoch)


def ledger(
    table: pa.Table, channel: Channel, writers: Mapping[str, pa.Table], tails: Mapping[str, Tail]
) -> tuple[list[Gap], dict[str, Tail]]:
    """The gaps of one symbol and period, and the tails for the next period.

    table: the stitched chain. writers: each writer's own rows in chain order. tails: where the chain ("", and STREAMED)
    and each writer's own chain stood before. A hole of the stitched chain is `lost` (`open` where ids can be fetched
    again); one that refilled rows close is `refilled`; a writer's hole that others fill is `bridged`.
    """
    after = dict(tails)
    chain = chain_of(table, channel)
    if chain is None:
        if table.num_rows:
            after[""] = Tail(int(codes(column(table, "received_time")).max()))
        return [], after
    whole = breaks(chain, tails.get(""))
    refilled = np.array(column(table, "source").to_pylist(), dtype=object) == REFILL
    behind = STREAMED in tails or bool(refilled.any())
    heard, heard_before = chain.where(~refilled), tails.get(STREAMED, tails.get(""))
    streamed = breaks(heard, heard_before) if behind else whole
    own: dict[str, list[Break]] = {}
    for name, rows in writers.items():
        writer_chain = chain_of(rows, channel)
        assert writer_chain is not None
        own[name] = breaks(writer_chain, tails.get(name))
        tail = tail_of(writer_chain, tails.get(name))
        if tail is not None:
            after[name] = tail
    status = "open" if channel.refillable else "lost"
    gaps = [Gap("", hole, "unprovable" if hole.restarted else status, _matching(hole, own)) for hole in whole]
    for hole in streamed:
        if not any(hole.overlaps(other) for other in whole):
            gaps.append(Gap("", hole, "refilled", _matching(hole, own)))
    known = [gap.hole for gap in gaps]
    for name, holes in sorted(own.items()):
        gaps += [Gap(name, hole, "bridged") for hole in holes if not any(hole.overlaps(other) for other in known)]
    for name in sorted(after.keys() - {"", STREAMED}):
        rows, after[name] = _told(name, after[name], whole)
        gaps += rows
    end = tail_of(chain, tails.get(""))
    if end is not None:
        after[""] = end
    after.pop(STREAMED, None)
    reached = tail_of(heard, heard_before) if behind else None
    if reached is not None and end is not None and reached.final_id != end.final_id:
        after[STREAMED] = reached
    return gaps, after


def _told(name: str, tail: Tail, whole: Sequence[Break]) -> tuple[list[Gap], Tail]:
    """A writer that is still away at the period's end, and the holes that nobody filled meanwhile: they are told.

    When it comes back in a later period, its own hole begins after them, so that what is told as `bridged` is. What
    others filled between its last event and such a hole is a row of its own. Writers that are away for longer than a
    day do not come back.
    """
    found: list[Gap] = []
    for hole in whole:
        if tail.final_id is None or hole.restarted or not tail.final_id < hole.start:
            continue
        if hole.start_us - tail.received_us > _DAY_US:
            continue
        if tail.final_id < hole.last_id:
            named = hole.last_id + hole.first_id - hole.start  # as the venue's events name their beginning
            filled = Break(tail.final_id, named, hole.last_id, tail.received_us, hole.start_us)
            found.append(Gap(name, filled, "bridged"))
        if tail.snapshot_id is not None and tail.snapshot_id <= hole.start:
            tail = msgspec.structs.replace(tail, snapshot_id=None, snapshot_us=None)
        tail = msgspec.structs.replace(tail, final_id=hole.start)
    return found, tail


def _matching(hole: Break, own: Mapping[str, list[Break]]) -> dict[str, Break]:
    return {name: other for name, holes in sorted(own.items()) for other in holes if other.overlaps(hole)}
