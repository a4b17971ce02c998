"""All subscriptions of a process, spread over connections by route and number of symbols."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from collectors.recorder import Recorder
from collectors.slot import Opener, Slot
from depthvault.exchanges.base import Exchange, Stream

LOG = logging.getLogger("depthvault.collector")

SUCCESSION = 30.0
"""Seconds for which a stream goes on, at most, when settings replace it by another of its channel and symbol."""


class Feed:
    """Keeps the wanted streams subscribed. `failed` ends with the error that makes going on senseless.

    on_lost: called with the streams that no connection carries any more.
    """

    def __init__(
        self, exchange: Exchange, recorder: Recorder, opener: Opener, on_lost: Callable[[Iterable[Stream]], None]
    ) -> None:
        self._exchange = exchange
        self._recorder = recorder
        self._opener = opener
        self._on_lost = on_lost
        self._index = 0
        self._tasks: dict[Slot, asyncio.Task[None]] = {}
        self._places: dict[str, Slot] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._successions: set[asyncio.Task[None]] = set()
        self._leaving: dict[str, Slot] = {}  # replaced streams, and where they go on until their successors speak
        self._moving: dict[Slot, set[str]] = {}  # streams that go on here until they are heard in their new place
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def slots(self) -> list[Slot]:
        return list(self._tasks)

    def slot_of(self, name: str) -> Slot | None:
        """The slot that holds the stream `name`."""
        return self._places.get(name)

    def set_exchange(self, exchange: Exchange) -> None:
        """Use another configuration for connections and subscriptions from now on; another address by a roll."""
        before, self._exchange = self._exchange, exchange
        self._opener.exchange = exchange
        for slot in self.slots:
            if exchange.url(slot.route) != before.url(slot.route):
                slot.request_roll("settings")

    def update(self, streams: Sequence[Stream]) -> tuple[list[Stream], list[Stream]]:
        """Make exactly `streams` subscribed; (added, removed). What stays is not touched, so nothing of it is lost.

        Where settings replace a stream (another cadence), the old one goes on until the new one speaks. Where they
        allow fewer symbols on a connection, those that are too many go on until they are heard on another one.
        """
        wanted = {stream.name: stream for stream in streams}
        for name in self._leaving.keys() & wanted.keys():  # changed, and changed back
            self._places[name] = self._leaving.pop(name)
        added = [stream for name, stream in wanted.items() if name not in self._places]
        successors: dict[tuple[str, str], list[str]] = {}
        for stream in added:
            successors.setdefault((stream.channel, stream.symbol), []).append(stream.name)
        removed: list[Stream] = []
        for slot in self.slots:
            gone = [stream for name, stream in slot.streams.items() if name not in wanted and name not in self._leaving]
            replaced = [stream for stream in gone if (stream.channel, stream.symbol) in successors]
            slot.remove([stream for stream in gone if stream not in replaced])
            for stream in replaced:
                self._leaving[stream.name] = slot
                names = successors[stream.channel, stream.symbol]
                _keep(self._successions, self._succession(stream, names))
            removed.extend(gone)
        for stream in removed:
            self._places.pop(stream.name, None)  # on its way from one slot to another it is in both
        by_place: dict[tuple[str, str], list[Stream]] = {}
        for stream in added:
            by_place.setdefault((stream.route, stream.symbol), []).append(stream)
        assigned: dict[Slot, list[Stream]] = {}
        planned = {slot: (slot.symbols, len(slot.streams)) for slot in self.slots}
        for (route, symbol), group in by_place.items():
            slot = self._room(route, symbol, len(group), planned)
            symbols, size = planned[slot]
            planned[slot] = (symbols | ({symbol} if symbol else set()), size + len(group))
            assigned.setdefault(slot, []).extend(group)
        for slot, group in assigned.items():
            self._assign(slot, group)
        self._thin_out()
        for slot in self.slots:
            if not slot.streams:
                self._end(slot)
        return added, removed

    def _assign(self, slot: Slot, streams: Sequence[Stream]) -> None:
        self._places.update((stream.name, slot) for stream in streams)
        slot.add(streams)
        if slot not in self._tasks:
            self._start(slot)

    def _thin_out(self) -> None:
        """Move symbols from connections that carry more than they may to others."""
        most = self._exchange.config.symbols_per_connection
        staying = {
            slot: {name: stream for name, stream in slot.streams.items() if name not in self._moving.get(slot, ())}
            for slot in self.slots
        }
        symbols = {
            slot: list(dict.fromkeys(stream.symbol for stream in streams.values() if stream.symbol))
            for slot, streams in staying.items()
        }
        planned = {slot: (set(names), len(staying[slot])) for slot, names in symbols.items() if len(names) <= most}
        for old in [slot for slot, names in symbols.items() if len(names) > most]:
            for symbol in symbols[old][most:]:
                group = [stream for stream in staying[old].values() if stream.symbol == symbol]
                new = self._room(old.route, symbol, len(group), planned)
                names, size = planned[new]
                planned[new] = names | {symbol}, size + len(group)
                self._moving.setdefault(old, set()).update(stream.name for stream in group)
                self._assign(new, group)
                _keep(self._successions, self._move(group, old, new))

    async def _move(self, streams: Sequence[Stream], old: Slot, new: Slot) -> None:
        """End `streams` on `old` when they are heard on `new`; those that are silent, when they have had some time."""
        await new.heard(streams)
        names = {stream.name for stream in streams}
        if not (left := self._moving.pop(old, set()) - names):
            LOG.info("the connections of route %r carry no more symbols than they may", old.route)
        else:
            self._moving[old] = left
        old.remove(streams)
        if not old.streams and old in self._tasks:
            self._end(old)

    async def _succession(self, stream: Stream, successors: Sequence[str]) -> None:
        """End `stream` when all of `successors` have spoken, or after some time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SUCCESSION
        states = self._recorder.states
        while loop.time() < deadline:
            if all(name not in states or states[name].frames for name in successors):
                break
            await asyncio.sleep(0.05)
        if (slot := self._leaving.pop(stream.name, None)) is not None:
            slot.remove([stream])
            if not slot.streams and slot in self._tasks:
                self._end(slot)

    def _room(self, route: str, symbol: str, size: int, planned: dict[Slot, tuple[set[str], int]]) -> Slot:
        """Where `size` more streams of `symbol` go: to its other streams, else where there is room, else a new slot."""
        most_symbols = self._exchange.config.symbols_per_connection
        most_streams = self._exchange.pacing.streams_per_connection
        candidates = [
            slot for slot, (_, used) in planned.items() if slot.route == route and used + size <= most_streams
        ]
        for slot in candidates:
            if symbol in planned[slot][0]:
                return slot
        for slot in candidates:
            if not symbol or len(planned[slot][0]) < most_symbols:
                return slot
        self._index += 1
        slot = Slot(self._index, route, self._opener, self._on_lost)
        planned[slot] = (set(), 0)
        return slot

    def _start(self, slot: Slot) -> None:
        task = asyncio.get_running_loop().create_task(slot.run(), name=f"slot-{slot.index}")
        self._tasks[slot] = task
        task.add_done_callback(lambda task: self._ended(slot, task))

    def _ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self.failed.done():
            return
        error = task.exception()
        if error is not None:
            self.failed.set_exception(error)
        elif slot in self._tasks and slot.streams:
            LOG.debug("slot %d ended", slot.index)

    def _end(self, slot: Slot) -> None:
        """Close a slot that has nothing left to carry."""
        _keep(self._closing, self._close(slot, self._tasks.pop(slot), "empty"))

    async def _close(self, slot: Slot, task: asyncio.Task[None], reason: str) -> None:
        await slot.stop(reason)
        await asyncio.wait({task}, timeout=0.2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await slot.stop(reason)  # a connection that was just being opened

    async def close(self, reason: str) -> None:
        """Close all connections, and take their last frames."""
        slots = dict(self._tasks)
        self._tasks.clear()
        self._places.clear()
        self._leaving.clear()
        self._moving.clear()
        for task in self._successions:
            task.cancel()
        await asyncio.gather(*self._successions, return_exceptions=True)
        await asyncio.gather(*(self._close(slot, task, reason) for slot, task in slots.items()), *self._closing)


def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    """Do `work` in the background; its task stands in `tasks` until it is done."""
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
