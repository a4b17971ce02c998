"""What receipts say of damage: no more than is so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from depthvault.archive.inputs import Sealed, listening
from depthvault.config import Config
from depthvault.exchanges import exchange
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.quality.sessions import Damage, Session, Span, cause_of
from depthvault.seal.receipts import DamagedRegion, JournalInput, MalformedFrame, Receipt

PERIOD = Period.parse("20250304T0100")
MINUTE = 60_000_000_000


def _damage(tmp_path: Path, **fields: Any) -> list[Damage]:
    plain: dict[str, Any] = {
        "exchange": "binance_spot", "writer": "a", "period": PERIOD.label, "period_minutes": 60, "complete": True,
        "journals": [], "files": [], "damage": [], "dropped": [], "rejected": {}, "unknown": {}, "inexact": {},
        "connections": [], "software": "1", "schema_version": 1,
    }  # fmt: skip
    receipt = Receipt(**{**plain, **fields})
    venue = exchange("binance_spot", Config().exchanges["binance_spot"])
    _, damage = listening(Layout(tmp_path), [Sealed("", "", receipt)], [PERIOD.label], venue)
    return damage


def _region(kind: str, until_ns: int | None) -> DamagedRegion:
    return DamagedRegion(
        path="journal/binance_spot/a/20250304T010000.000000Z.journal", start=10, end=20, kind=kind, reason="",
        last_sequence=1, next_sequence=None, from_ns=PERIOD.start_ns, until_ns=until_ns,
    )  # fmt: skip


def test_a_torn_tail_damages_nothing_that_came_after_the_crash(tmp_path: Path) -> None:
    assert _damage(tmp_path, damage=[_region("torn", None)]) == []
    until = PERIOD.start_ns + MINUTE
    (corrupt,) = _damage(tmp_path, damage=[_region("corrupt", until)])
    assert corrupt.span == Span(PERIOD.start_ns, until)


def test_a_corrupt_end_of_a_journal_damages_nothing_that_the_writer_s_next_one_holds(tmp_path: Path) -> None:
    (alone,) = _damage(tmp_path, damage=[_region("corrupt", None)])
    assert alone.span == Span(PERIOD.start_ns, PERIOD.end_ns), "nobody knows when it ended"
    for name, until in (
        ("journal/binance_spot/a/20250304T010700.000000Z.journal", PERIOD.start_ns + 7 * MINUTE),
        ("journal/binance_spot/a/20250304T023000.000000Z.journal", PERIOD.start_ns + 90 * MINUTE),
    ):
        journals = [JournalInput(path=name, bytes_read=1, rows=1, crc32c="")]
        (damage,) = _damage(tmp_path, damage=[_region("corrupt", None)], journals=journals)
        assert damage.span == Span(PERIOD.start_ns, until)


def test_frames_are_malformed_when_they_came(tmp_path: Path) -> None:
    at = PERIOD.start_ns + MINUTE
    frame = MalformedFrame(channel="depth_diff", at_ns=at)
    assert _damage(tmp_path, rejected={"depth_diff": 1}, malformed=[frame]) == [
        Damage("a", "malformed", Span(at, at), "depth_diff")
    ]
    more = _damage(tmp_path, rejected={"depth_diff": 9, "frame": 2}, malformed=[frame])
    whole = Span(PERIOD.start_ns, PERIOD.end_ns)
    assert Damage("a", "malformed", whole, "depth_diff") in more, "of the others nothing is known"
    assert Damage("a", "malformed", whole, "") in more


@pytest.mark.parametrize(("minute", "cause"), [(5, "malformed"), (7, "venue")])
def test_a_frame_of_unknown_channel_explains_the_gap_that_it_lies_in(minute: int, cause: str) -> None:
    whole = Span(PERIOD.start_ns, PERIOD.end_ns)
    session = Session("a", whole.start, whole.end, None, {("depth_diff", "BTCUSDT"): (whole,)})
    at = PERIOD.start_ns + 5 * MINUTE
    window = Span(PERIOD.start_ns + minute * MINUTE - MINUTE // 2, PERIOD.start_ns + minute * MINUTE + MINUTE // 2)
    damage = [Damage("a", "malformed", Span(at, at), "")]
    assert cause_of(window, ["a"], [session], damage, "depth_diff", "BTCUSDT").cause == cause
