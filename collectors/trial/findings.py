"""What the oracle finds on one channel of one venue: counts, and some examples of what is wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

MOST_EXAMPLES = 20


class Findings(msgspec.Struct):
    """Counts of rows. streams: of the truth; delivered: those of them that a subscription delivered. generated: by the
    simulator for recorded symbols. held: by any journal. missing: generated and not held, between the first and the
    last that is. numbers: prices and sizes compared. gaps: rows of the ledger that no other instance bridged.
    unprovable: missing on a channel without ids while a subscription delivered, but never sent whole to a connection
    that lived on: nothing can show it (while none delivered, it must be declared). strokes: gaps of one instance across
    a signal that it was sent.

    The rest must be 0. lost: held, not archived. unheld: archived, not held. doubled: archived twice. wrong: with
    another value than the venue's text. undeclared: missing, and no gap says so. false: gaps that are none. dropped:
    written whole to a connection that lived on, and in no journal. miscaused: gaps across a signal that name another
    cause. strangers: frames that the venue never sent.
    """

    venue: str
    channel: str
    streams: int = 0
    delivered: int = 0
    generated: int = 0
    held: int = 0
    archived: int = 0
    missing: int = 0
    numbers: int = 0
    gaps: int = 0
    bridged: int = 0
    unprovable: int = 0
    strokes: int = 0
    lost: int = 0
    unheld: int = 0
    doubled: int = 0
    wrong: int = 0
    undeclared: int = 0
    false: int = 0
    dropped: int = 0
    miscaused: int = 0
    strangers: int = 0
    examples: list[str] = []

    def note(self, text: str) -> int:
        """Keep `text` as an example while there is room; returns 1."""
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(text)
        return 1

    def example(self, what: str, values: npt.NDArray[np.int64]) -> int:
        """Note `values`; returns how many there are."""
        if values.size:
            self.note(f"{what}: {values.size} ({', '.join(map(str, values[:3].tolist()))}…)")
        return int(values.size)

    @property
    def problems(self) -> dict[str, int]:
        """What must be 0 and is not."""
        counts: dict[str, Any] = {name: getattr(self, name) for name in MUST_BE_ZERO}
        return {name: count for name, count in counts.items() if count}


MUST_BE_ZERO = ("lost", "unheld", "doubled", "wrong", "undeclared", "false", "dropped", "miscaused", "strangers")
