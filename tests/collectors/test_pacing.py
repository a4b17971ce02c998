from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from collectors.pacing import backoff
from depthvault.pacing import SharedBucket, TokenBucket


def test_backoff_doubles_its_ceiling_up_to_the_longest_with_full_jitter() -> None:
    rng = random.Random(3)
    for attempt, ceiling in ((1, 0.5), (2, 1.0), (4, 4.0), (7, 30.0), (500, 30.0)):
        waits = [backoff(attempt, 0.5, 30.0, rng) for _ in range(400)]
        assert 0 <= min(waits) < 0.1 * ceiling
        assert 0.9 * ceiling < max(waits) <= ceiling


def test_backoff_can_be_repeated_from_its_seed() -> None:
    assert [backoff(n, 1, 60, random.Random(5)) for n in range(1, 9)] == [
        backoff(n, 1, 60, random.Random(5)) for n in range(1, 9)
    ]


@pytest.mark.parametrize(("rate", "burst"), [(3.0, 3), (10.0, 1)])
def test_bucket_never_lets_more_than_burst_and_rate_through(rate: float, burst: int) -> None:
    bucket = TokenBucket(rate, burst)
    sent: list[float] = []
    now = 100.0
    for _ in range(40):
        now += bucket.take(now)
        sent.append(now)
    for start in sent:
        for length in (0.5, 1.0, 2.0, 5.0):
            assert sum(start <= moment < start + length - 1e-9 for moment in sent) <= burst + rate * length
    assert sent[burst - 1] == 100.0


def test_bucket_fills_again_but_not_beyond_its_burst() -> None:
    bucket = TokenBucket(1.0, 2)
    assert [bucket.take(0.5) for _ in range(2)] == [0.0, 0.0]
    assert [bucket.take(1000.0) for _ in range(3)] == [0.0, 0.0, 1.0]


def test_a_shared_bucket_gives_each_token_once_whoever_asks(tmp_path: Path) -> None:
    waits: list[float] = []

    def ask() -> None:
        bucket = SharedBucket(tmp_path / "bucket", 2.0, 10)  # as another process would
        waits.extend(bucket.take(100.0) for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == [0.0] * 10 + [number / 2 for number in range(1, 51)]
    assert SharedBucket(tmp_path / "bucket", 2.0, 10).take(1000.0) == 0.0


def test_a_shared_bucket_of_an_earlier_boot_is_full_again(tmp_path: Path) -> None:
    bucket = SharedBucket(tmp_path / "bucket", 1.0, 1)
    assert [bucket.take(5_000_000.0), bucket.take(5_000_000.0)] == [0.0, 1.0]
    assert bucket.take(30.0) == 0.0
    (tmp_path / "bucket").write_bytes(b"cut")
    assert bucket.take(31.0) == 0.0
