"""`depthvault quicktest`: a few minutes of six symbols to CSV, then in plain words whether this machine will do."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from collectors.session import Outcome
from depthvault.config import Config
from depthvault.exchanges import exchange
from depthvault.layout import encode_symbol

BASES = ("BTC", "ETH", "XRP", "SOL", "BNB", "DOGE")
CHANNELS = ("depth_diff", "depth_snapshot", "agg_trade", "trade")
_CSV = (("depth_diff", "depth"), ("agg_trade", "trades"), ("trade", "trades"))
"""Of two channels for one kind of file the first that the venue has."""

LAG_GOOD_MS, LAG_BAD_MS = 250.0, 1500.0
CLOCK_GOOD_MS, CLOCK_BAD_MS = 50.0, 1000.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was measured. verdict: good, fair or bad."""

    what: str
    verdict: str
    text: str


def symbols(config: Config) -> dict[str, list[str]]:
    """The six symbols as each venue spells them."""
    return {
        name: [exchange(name, config.exchanges[name]).spelling(base, "USDT") for base in BASES]
        for name in type(config.exchanges).model_fields
    }


def write_csv(config: Config, folder: Path) -> list[Path]:
    """Write the recorded books and trades, one CSV an exchange, symbol and kind; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name in config.exchanges.enabled():
            done = set()
            for channel, kind in _CSV:
                files = [
                    str(path) for path in config.layout.live.glob(f"exchange={name}/channel={channel}/**/*.parquet")
                ]
                if not files or kind in done:
                    continue
                done.add(kind)
                rows = connection.read_parquet(files, hive_partitioning=False)
                for (symbol,) in rows.project("symbol").distinct().order("symbol").fetchall():
                    path = folder / f"{name}_{encode_symbol(symbol)}_{kind}.csv"
                    chosen = rows.filter(duckdb.ColumnExpression("symbol") == duckdb.ConstantExpression(symbol))
                    chosen.order("received_time").write_csv(str(path))
                    written.append(path)
    return written


def findings(config: Config, outcome: Outcome) -> list[Finding]:
    """What the session says about this machine, its clock and its network."""
    found = [_gaps(outcome), _lag(config), _clock(config), _load(outcome), _disk(config, outcome)]
    return [each for each in found if each is not None]


def _gaps(outcome: Outcome) -> Finding:
    problems = outcome.problems()
    if problems:
        return Finding("completeness", "bad", "; ".join(problems))
    rows = sum(outcome.rows.values())
    return Finding("completeness", "good", f"{rows:,} rows, no gap, no frame that could not be read")


def _lag(config: Config) -> Finding | None:
    files = [str(path) for path in config.layout.live.glob("exchange=*/channel=depth_diff/**/*.parquet")]
    if not files:
        return None
    with duckdb.connect() as connection:
        row = (
            connection.read_parquet(files, hive_partitioning=False)
            .aggregate("quantile_cont(epoch_us(received_time) - epoch_us(event_time), [0.5, 0.99]), count(event_time)")
            .fetchone()
        )
    if row is None or not row[1]:
        return None
    median, late = (value / 1000 for value in row[0])
    verdict = "good" if -CLOCK_GOOD_MS <= median <= LAG_GOOD_MS else "fair" if abs(median) <= LAG_BAD_MS else "bad"
    text = f"a book change is here {median:,.0f} ms after the venue sent it (99 % within {late:,.0f} ms)"
    if median < -CLOCK_GOOD_MS:
        text += "; before it was sent: this clock is behind"
    return Finding("lag", verdict, text)


def _clock(config: Config) -> Finding:
    files = [str(path) for path in config.layout.live.glob("exchange=*/channel=collector_event/**/*.parquet")]
    measured: list[dict[str, Any]] = []
    if files:
        with duckdb.connect() as connection:
            rows = connection.read_parquet(files, hive_partitioning=False).filter("kind = 'clock'").project("detail")
            measured = [reference for (text,) in rows.fetchall() if (reference := json.loads(text).get("reference"))]
    if not measured:
        return Finding("clock", "fair", "neither an NTP server nor the venue's clock could be asked")
    worst = max(measured, key=lambda reference: abs(reference["offset_s"]))
    offset, name = 1000 * worst["offset_s"], worst["source"]
    size = abs(offset)
    verdict = "good" if size <= CLOCK_GOOD_MS else "fair" if size <= CLOCK_BAD_MS else "bad"
    advice = "" if verdict == "good" else "; run chrony or systemd-timesyncd"
    return Finding("clock", verdict, f"{offset:+,.0f} ms against {name}{advice}")


def _load(outcome: Outcome) -> Finding | None:
    if not outcome.statuses:
        return None
    cpu = sum(status["cpu_s"] / max(status["uptime_s"], 1) for status in outcome.statuses.values())
    memory = sum(status["rss_bytes"] for status in outcome.statuses.values()) / 2**20
    rate = sum(status["frames"] / max(status["uptime_s"], 1) for status in outcome.statuses.values())
    verdict = "good" if cpu < 0.5 else "fair" if cpu < 0.9 else "bad"
    return Finding(
        "load", verdict, f"{rate:,.0f} frames/s took {100 * cpu:.0f} % of a core and {memory:,.0f} MB of memory"
    )


def _disk(config: Config, outcome: Outcome) -> Finding:
    journals = sum(path.stat().st_size for path in config.layout.journals.rglob("*.journal"))
    live = sum(outcome.bytes.values())
    day = (journals + live) * 86400 / max(outcome.seconds, 1)
    free = shutil.disk_usage(config.data_dir).free
    days = free / day if day else float("inf")
    verdict = "good" if days >= 14 else "fair" if days >= 3 else "bad"
    return Finding(
        "disk", verdict, f"{day / 2**30:,.2f} GB a day for these symbols; {free / 2**30:,.0f} GB free: {days:,.0f} days"
    )


def conclusion(found: list[Finding]) -> tuple[str, bool]:
    """One sentence, and whether it is a yes."""
    bad = [finding.what for finding in found if finding.verdict == "bad"]
    fair = [finding.what for finding in found if finding.verdict == "fair"]
    if bad:
        return f"Not good enough yet: mend {', '.join(bad)} first.", False
    if fair:
        return f"Good enough, but look at {', '.join(fair)}.", True
    return "This machine, its clock and its network are good enough.", True
