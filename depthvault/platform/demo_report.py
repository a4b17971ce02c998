"""What the demo shows at its end, computed from the archive itself: manifests, quality tables, the store's bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr
from rich.table import Table

import depthvault
from depthvault.archive.manifest import ArchiveState, worst
from depthvault.archive.store import open_store
from depthvault.config import Secrets
from depthvault.errors import PlatformError
from depthvault.platform.demo_progress import archive_state
from depthvault.platform.site import Site

QUERY = """\
SELECT exchange, symbol, count(*) AS updates, round(100 * avg(spread_percent), 3) AS spread_bp,
round(avg(imbalance), 3) AS imbalance, round(max(mid_price) / min(mid_price) * 1e4 - 1e4, 1) AS range_bp
FROM top_of_book GROUP BY ALL ORDER BY symbol, exchange LIMIT 12"""
"""What a researcher would ask first: spreads, imbalance and range of the best prices, a symbol and venue."""


_COVERAGE = """\
SELECT exchange, channel, avg(share) FROM coverage
WHERE period > (SELECT min(period) FROM coverage) GROUP BY ALL"""
"""Without the first period: recording began within it."""


@dataclass(slots=True)
class Line:
    """One venue's channel. `before`: bytes of the sealed live files that went in, `after`: of the archive files."""

    exchange: str
    channel: str
    events: int = 0
    duplicates: int = 0
    gaps: int = 0
    before: int = 0
    after: int = 0
    files: int = 0
    verified: int = 0
    coverage: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What was archived, how it was judged, how many objects the store gave back right, and the query's answer.

    journals: bytes of the raw frames as they lie in the journals. archived: bytes of all archive files.
    """

    lines: list[Line]
    conditions: dict[str, str]
    journals: int
    archived: int
    objects: int
    verified: int
    query: str
    answer: Table


def demo_secrets(site: Site) -> Secrets:
    """Access to the demo's own store."""
    values = site.demo_store()
    return Secrets(
        r2_endpoint_url=values["R2_ENDPOINT_URL"],
        r2_bucket_name=values["R2_BUCKET_NAME"],
        r2_access_key_id=SecretStr(values["R2_ACCESS_KEY_ID"]),
        r2_secret_access_key=SecretStr(values["R2_SECRET_ACCESS_KEY"]),
    )


def gather(site: Site) -> Report:
    """Read everything back. Raises DepthvaultError when the archive or the store cannot be read."""
    state = archive_state(site)
    lines = _lines(site, state)
    intact = _read_back(site, state)
    for path, good in intact.items():
        _kind, exchange, channel, _period = state.owner[path]
        line = lines[exchange, channel]
        line.files += 1
        line.verified += good
    vault = depthvault.open(site.data_dir, config=site.config, secrets=demo_secrets(site))
    coverage = vault.sql(_COVERAGE).fetchall()
    for exchange, channel, share in coverage:
        # What a collector says of itself comes when it happens: there is nothing to cover.
        if (exchange, channel) in lines and channel != "collector_event":
            lines[exchange, channel].coverage = share
    journals = sum(path.stat().st_size for path in site.config.layout.journals.rglob("*.journal"))
    archived = sum(file.bytes for file in state.files.values())
    relation = vault.sql(QUERY)
    answer = _table(relation.columns, relation.fetchall())
    return Report(
        list(lines.values()),
        _conditions(state),
        journals,
        archived,
        len(intact),
        sum(intact.values()),
        " ".join(QUERY.split()),
        answer,
    )


def _lines(site: Site, state: ArchiveState) -> dict[tuple[str, str], Line]:
    lines: dict[tuple[str, str], Line] = {}
    for (kind, exchange, channel, _period), entry in sorted(state.current.items()):
        if kind != "hour":
            continue
        line = lines.setdefault((exchange, channel), Line(exchange, channel))
        line.events += entry.counts.rows
        line.duplicates += entry.counts.duplicates
        line.gaps += entry.counts.gaps
        line.before += sum(_size(site, item.path) for item in entry.inputs)
        line.after += sum(file.bytes for file in state.files_of(entry.unit) if file.table == channel)
    return lines


def _conditions(state: ArchiveState) -> dict[str, str]:
    """The worst condition of any venue's channel in each period."""
    found: dict[str, str] = {}
    for (kind, _exchange, _channel, period), entry in sorted(state.current.items()):
        if kind == "hour":
            found[period] = worst(entry.condition, found.get(period, entry.condition))
    return found


def _size(site: Site, path: str) -> int:
    try:
        return (site.data_dir / path).stat().st_size
    except FileNotFoundError:  # cleaned up: then its size is known no more
        return 0


def _read_back(site: Site, state: ArchiveState) -> dict[str, bool]:
    """Every object of the archive, fetched and hashed: whether it holds what its manifest says."""
    store = open_store(site.config.store, demo_secrets(site))
    if store is None:
        raise PlatformError("the demo's object store is not configured")
    intact = {}
    for path, file in state.files.items():
        held = store.held(path)
        intact[path] = held is not None and held.sha256 == file.sha256
    return intact


def _kib(size: int) -> str:
    return f"{size / 1024:,.0f} KiB"


def table(report: Report) -> Table:
    """The lines as a table, a block for each venue; it fits 80 columns."""
    found = Table(header_style="bold", box=None, padding=(0, 1, 0, 0))
    found.add_column("channel", no_wrap=True)
    for heading in ("events", "gaps", "duplicates", "coverage", "before", "after", "in store"):
        found.add_column(heading, justify="right", no_wrap=True)
    venue = ""
    for line in report.lines:
        if line.exchange != venue:
            venue = line.exchange
            found.add_row(f"[bold]{venue}[/]")
        share = "" if line.coverage is None else f"{100 * line.coverage:.1f} %"
        right = line.verified == line.files
        checked = f"{line.verified}/{line.files} ✓" if right else f"[red]{line.verified}/{line.files} ✗[/]"
        found.add_row(
            f"  {line.channel}", f"{line.events:,}", str(line.gaps), f"{line.duplicates:,}", share,
            _kib(line.before), _kib(line.after), checked,
        )  # fmt: skip
    return found


def _table(columns: list[str], rows: list[tuple[Any, ...]]) -> Table:
    found = Table(header_style="bold", box=None)
    for column in columns:
        found.add_column(column)
    for row in rows:
        found.add_row(
            *("" if value is None else f"{value:,}" if isinstance(value, int) else str(value) for value in row)
        )
    return found
