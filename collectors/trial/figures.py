"""What the recording cost, from what each collector told of itself each second."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import msgspec
import numpy as np

from collectors.trial.stage import Recorded, Sample

WARM_UP = 60.0
"""Seconds after a collector's start that say nothing about its memory; neither does the first half of its life: books,
buffers and caches are filling."""
JUDGED = 300.0
"""Seconds beyond the warm-up that memory must have been watched for before it can be called flat, or not."""
FLAT = 0.02
"""Share of its memory by which a collector may grow in ten minutes and still be called flat: surely more, by twice the
standard error, is not flat; an error beyond `VAGUE` says nothing."""
VAGUE = 0.1
_BLOCKS = 8


class Cost(msgspec.Struct):
    """One collector (an exchange's instance), all of its processes taken together.

    frames, cpu: of the time after the first seconds, so that a start is not counted. rss_max: bytes, of any process.
    anonymous: bytes that the longest-lived process held, apart from pages of files, when it began to be watched: in the
    second half of its life, after the warm-up. slope, uncertainty: of those, bytes a minute. watched: seconds.
    """

    exchange: str
    writer: str
    processes: int = 0
    frames: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    bytes: int = 0
    rss_max: int = 0
    anonymous: int = 0
    slope: float = 0.0
    uncertainty: float = float("inf")
    watched: float = 0.0

    @property
    def microseconds(self) -> float:
        """CPU time a frame, of the whole process."""
        return 1e6 * self.cpu / self.frames if self.frames else 0.0

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds if self.seconds else 0.0

    @property
    def is_flat(self) -> bool | None:
        """None: not watched for long enough to say."""
        if self.watched < JUDGED:
            return None
        if (self.slope - 2 * self.uncertainty) * 10 > FLAT * self.anonymous:
            return False
        return True if 20 * self.uncertainty <= VAGUE * self.anonymous else None


def costs(recorded: Recorded) -> list[Cost]:
    """The cost of each collector."""

    def owner(sample: Sample) -> tuple[str, str, int]:
        return sample.exchange, sample.writer, sample.pid

    found: dict[tuple[str, str], Cost] = {}
    for (exchange, writer, _), samples in groupby(sorted(recorded.samples, key=owner), owner):
        cost = found.setdefault((exchange, writer), Cost(exchange, writer))
        _add(cost, sorted(samples, key=lambda sample: sample.seconds))
    return list(found.values())


def _add(cost: Cost, samples: list[Sample]) -> None:
    cost.processes += 1
    steady = [sample for sample in samples if sample.uptime >= 5.0]
    if len(steady) > 1:
        first, last = steady[0], steady[-1]
        cost.frames += last.frames - first.frames
        cost.bytes += last.bytes - first.bytes
        cost.cpu += last.cpu - first.cpu
        cost.seconds += last.uptime - first.uptime
    cost.rss_max = max(cost.rss_max, *(sample.rss for sample in samples))
    warm = [sample for sample in samples if sample.uptime >= max(WARM_UP, samples[-1].uptime / 2)]
    watched = warm[-1].uptime - warm[0].uptime if warm else 0.0
    if watched > cost.watched:
        cost.watched, cost.anonymous = watched, warm[0].anonymous
        cost.slope, cost.uncertainty = _slope(warm)


def _slope(samples: Sequence[Sample]) -> tuple[float, float]:
    """Bytes a minute by which the floor of the memory rises, and how uncertain that is (standard error).

    Pages of files are left out: they come and go with whatever else the machine does. What is left goes up and down by
    a tenth with every burst that is buffered; a leak raises what remains between. So a line is drawn through the least
    of each of `_BLOCKS` stretches of time.
    """
    if len(samples) < 4 * _BLOCKS:
        return 0.0, float("inf")
    blocks = [samples[len(samples) * n // _BLOCKS : len(samples) * (n + 1) // _BLOCKS] for n in range(_BLOCKS)]
    minutes = np.array([np.mean([sample.uptime for sample in block]) / 60 for block in blocks])
    floors = np.array([min(sample.anonymous for sample in block) for block in blocks], np.float64)
    (slope, _), covariance = np.polyfit(minutes, floors, 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0]))
