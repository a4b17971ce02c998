"""The report says what the manifests and quality tables say, and shows what is missing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from depthvault.archive.manifest import ArchiveFile, ArchiveState, Counts, Entry, SymbolSpan, encode
from depthvault.config import load_config
from depthvault.durable import sha256_file
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.report import day_of, html_report, text_report, write_report
from depthvault.report.day import Day
from depthvault.report.disk import Disk, measure
from depthvault.report.outages import outages
from depthvault.report.symbols import symbols_of, symbols_page
from depthvault.report.words import lasting, number, percent, size
from depthvault.schemas import QUALITY

DAY = date(2026, 11, 20)
MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
DISK = Disk(free=80_000_000_000, total=100_000_000_000, journal=1, live=2, archive=3, a_day=4_000_000_000)
EXCHANGE = "binance_spot"
TROUBLED = "<b>&币安人生USDT"


class Archive:
    """An archive of hours, entry by entry."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.state = ArchiveState()

    def hour(
        self,
        hour: int,
        *,
        channel: str = "depth_diff",
        share: float = 1.0,
        condition: str = "available",
        failed: tuple[str, ...] = (),
        gaps: tuple[dict[str, Any], ...] = (),
        symbols: tuple[str, ...] = ("BTCUSDT", TROUBLED),
    ) -> None:
        period = Period(MIDNIGHT + timedelta(hours=hour))
        key = {"exchange": EXCHANGE, "channel": channel, "period": period.start}
        coverage = [
            key | {"symbol": symbol, "events": 10, "duplicates": 0, "gaps": 0, "covered_seconds": 1.0, "share": share}
            for symbol in symbols
        ]
        files = [
            ArchiveFile(
                Layout.hour_key(EXCHANGE, channel, period, 1), "0" * 64, 1000, 20, "", channel,
                symbols={symbol: SymbolSpan(10, 0, 0, (0, 1)) for symbol in symbols},
            ),
            self._quality("coverage", coverage, channel, period),
        ]  # fmt: skip
        if gaps:
            whole = {"symbol": "BTCUSDT", "instance": "", "cause": "disconnect", "status": "lost", "detail": "{}"}
            files.append(self._quality("gaps", [key | whole | gap for gap in gaps], channel, period))
        entry = Entry(
            number=self.state.number + 1, previous=self.state.head, kind="hour", exchange=EXCHANGE, channel=channel,
            period=period.label, period_minutes=60, generation=1, created="", publisher="", software="",
            schema_version=1, libraries={}, inputs=[], add=files, remove=[], counts=Counts(rows=20, duplicates=2),
            condition=condition, failed=list(failed),
        )  # fmt: skip
        data = encode(entry)
        path = self.layout.manifest(entry.number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.state.append(data)

    def _quality(self, table: str, rows: list[dict[str, Any]], channel: str, period: Period) -> ArchiveFile:
        key = Layout.quality_key(table, EXCHANGE, channel, period, 1)
        path = self.layout.archived(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=QUALITY[table]), path)
        return ArchiveFile(key, sha256_file(path), path.stat().st_size, len(rows), "", table)

    def day(self, made: datetime, *, store: bool = True) -> Day:
        grace = timedelta(minutes=15)
        return day_of(self.layout, self.state, DAY, made, DISK, enabled=[EXCHANGE], store=store, grace=grace)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "data")


NEXT_DAY = MIDNIGHT + timedelta(days=1, minutes=40)


def test_a_whole_day_is_complete(archive: Archive) -> None:
    for hour in range(24):
        archive.hour(hour)
    day = archive.day(NEXT_DAY)
    assert (day.verdict, day.expected, day.archived, day.missing) == ("complete", 24, 24, 0)
    (channel,) = day.channels
    assert (channel.rows, channel.bytes > 24_000, channel.duplicates, channel.share) == (480, True, 48, 1.0)
    assert [cell.condition for cell in channel.hours] == ["available"] * 24
    assert "100 % covered" in text_report(day)


def test_an_hour_that_is_not_archived_is_missing_once_its_time_is_over(archive: Archive) -> None:
    archive.hour(3)
    archive.hour(5)
    day = archive.day(MIDNIGHT + timedelta(hours=7, minutes=10))
    conditions = [cell.condition for cell in day.channels[0].hours]
    assert conditions[2:8] == ["", "available", "missing", "available", "", ""]  # the sixth hour still has its grace
    assert day.verdict == "incomplete"
    assert "1 periods missing" in text_report(day)
    assert archive.day(MIDNIGHT + timedelta(hours=7, minutes=16)).missing == 2


def test_an_hour_that_nobody_judged_is_neither_whole_nor_degraded(archive: Archive) -> None:
    for hour in range(24):
        archive.hour(hour, condition="pending" if hour == 7 else "available")
    day = archive.day(NEXT_DAY)
    assert (day.verdict, day.degraded, day.pending) == ("pending", 0, 1)
    assert day.channels[0].hours[7].condition == "pending"
    assert "0 degraded, 1 not judged, 0 missing" in text_report(day)
    assert "1 not judged" in html_report(day)


def test_a_channel_that_is_polled_now_and_then_is_never_missing(archive: Archive) -> None:
    archive.hour(0, channel="funding_rate")
    day = archive.day(NEXT_DAY)
    assert (day.expected, day.missing) == (1, 0)


def test_a_degraded_hour_is_named_with_what_failed(archive: Archive) -> None:
    said = "BTCUSDT: share is 0.5 (the stream was connected and subscribed for the period)"
    archive.hour(0, condition="degraded", share=0.5, failed=(said, said.replace("BTC", "ETH")))
    day = archive.day(MIDNIGHT + timedelta(hours=1, minutes=1))
    assert day.verdict == "degraded"
    assert day.failures == {("the stream was connected and subscribed for the period", EXCHANGE, "depth_diff"): 2}
    page = html_report(day)
    assert "the stream was connected and subscribed for the period" in page
    assert "50.00 %" in page


def test_gaps_are_listed_longest_first_and_closed_ones_only_counted(archive: Archive) -> None:
    def gap(seconds: float, status: str = "lost") -> dict[str, Any]:
        end = MIDNIGHT + timedelta(seconds=seconds)
        return {"last_id": 7, "first_id": 9, "start_time": MIDNIGHT, "end_time": end, "status": status}

    archive.hour(0, gaps=(gap(1), gap(20), gap(900, "bridged")))
    day = archive.day(MIDNIGHT + timedelta(hours=1))
    assert [row["end_time"].second for row in day.gaps] == [20, 1]
    assert (day.open_gaps, day.channels[0].gaps["bridged"]) == (2, 1)
    page = html_report(day)
    assert "20.000" in page
    assert "7 … 9" in page
    assert "900.000" not in page
    assert "Gaps that nothing closed: 2" in text_report(day)


def test_one_lost_connection_is_told_once_for_all_its_symbols(archive: Archive) -> None:
    gaps = tuple(
        {
            "symbol": f"S{number}USDT",
            "start_time": MIDNIGHT + timedelta(seconds=number / 10),
            "end_time": MIDNIGHT + timedelta(seconds=30 + number / 10),
        }
        for number in range(8)
    )
    archive.hour(0, gaps=gaps)
    day = archive.day(MIDNIGHT + timedelta(hours=1))
    (outage,) = outages(day.gaps)
    assert (len(outage.symbols), outage.seconds) == (8, 30.7)
    assert "8 symbols: disconnect, lost, 30.7 s" in text_report(day)
    assert "S5USDT and 2 more" in html_report(day)


def test_a_stream_of_the_whole_market_is_called_so_and_is_no_symbol(archive: Archive) -> None:
    gap = {"symbol": "", "start_time": MIDNIGHT, "end_time": MIDNIGHT + timedelta(seconds=3), "status": "unprovable"}
    archive.hour(0, channel="liquidation", share=0.5, gaps=(gap,), symbols=("BTCUSDT", ""))
    day = archive.day(MIDNIGHT + timedelta(hours=1))
    assert len(day.channels[0].symbols) == 1
    assert "liquidation the whole market: disconnect, unprovable, 3.0 s" in text_report(day)
    assert html_report(day).count("the whole market") == 2  # the gap, and among the least covered
    page = symbols_page(
        EXCHANGE, "liquidation", DAY, symbols_of(archive.layout, archive.state, EXCHANGE, "liquidation", DAY)
    )
    assert "1 symbols" in page
    assert "the whole market" in page


def test_gaps_apart_in_time_or_cause_are_told_apart() -> None:
    gap = {"exchange": EXCHANGE, "channel": "trade", "symbol": "BTCUSDT", "status": "lost", "cause": "crash"}
    times = {"start_time": MIDNIGHT, "end_time": MIDNIGHT + timedelta(seconds=5)}
    later = {"start_time": MIDNIGHT + timedelta(seconds=3), "end_time": MIDNIGHT + timedelta(seconds=8)}
    assert len(outages([gap | times, gap | later, gap | times | {"cause": "stop"}, gap | times])) == 3


class _Page(HTMLParser):
    """Checks nesting, and gathers tags and addresses."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "action"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_no_name_breaks_it(archive: Archive) -> None:
    archive.hour(0, share=0.5, gaps=({"symbol": TROUBLED, "last_id": None},))
    text = html_report(archive.day(MIDNIGHT + timedelta(hours=1)))
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert page.addresses == []
    assert page.tags.isdisjoint({"script", "link", "img", "iframe"})
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "&lt;b&gt;&amp;币安人生USDT" in text
    assert TROUBLED not in text


def test_quality_files_that_only_the_store_has_are_said_so(archive: Archive) -> None:
    archive.hour(0)
    for path in archive.layout.archive.rglob("*.parquet"):
        path.unlink()
    day = archive.day(MIDNIGHT + timedelta(hours=1))
    assert day.unread == 1
    assert "1 quality files are in the object store alone" in html_report(day)


def test_an_empty_archive_has_a_report_too(archive: Archive) -> None:
    day = archive.day(NEXT_DAY, store=False)
    assert day.verdict == "empty"
    assert "nothing local is ever deleted" in text_report(day)
    assert "No chain is broken" in html_report(day)


def test_a_report_is_written_and_written_again_the_same(archive: Archive) -> None:
    for hour in range(24):
        archive.hour(hour)
    config = load_config(data_dir=archive.layout.root)
    first = write_report(config, DAY, NEXT_DAY, store=True)
    again = write_report(config, DAY, NEXT_DAY, store=True)
    assert first.folder == archive.layout.reports / "2026-11-20"
    assert first.title == "2026-11-20: complete"
    # All but the free disk, which others use too.
    said, repeated = (
        [line for line in report.text.splitlines() if not line.startswith("Disk")] for report in (first, again)
    )
    assert said == repeated
    assert (first.folder / "report.html").read_text(encoding="utf-8") == again.html


def test_disk_growth_counts_what_was_written_within_a_day(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    path = layout.journals / "binance_spot" / "a" / "x.journal"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * 1000)
    now = datetime.fromtimestamp(path.stat().st_mtime, UTC) + timedelta(hours=12)
    disk = measure(layout, now)
    assert (disk.journal, disk.a_day) == (1000, 2000)  # half a day on record, scaled up
    assert disk.days_left == disk.free / 2000
    assert measure(layout, now + timedelta(days=2)).days_left is None


def test_words() -> None:
    assert [size(0), size(999), size(1000), size(3_240_000), size(5e15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "3.2 MB",
        "5000.0 TB",
    ]
    assert number(1234567) == "1\u202f234\u202f567"
    assert [percent(1.0), percent(0.999999), percent(0.5), percent(None)] == ["100 %", "99.99 %", "50.00 %", "–"]
    assert [lasting(None), lasting(3.14), lasting(31.4)] == ["nothing grows", "3.1 days", "31 days"]
