"""What the demo shows at its end, computed from the archive itself: manifests, quality tables, the store's bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr
from rich.table import Table

import depthvault
from depthvault.archive.manifest import ArchiveState
from depthvault.archive.store import open_store
from depthvault.config import Secrets
from depthvault.errors import PlatformError
from depthvault.platform.demo_progress import archive_state
from depthvault.platform.site import Site

QUERY = """\
SELECT exchange, symbol, count(*) AS updates, round(avg(spread_percent) * 100, 3) AS spread_bp,
       round(avg(imbalance), 3) AS imbalance
FROM depth_snapshot GROUP BY ALL ORDER BY exchange, spread_bp LIMIT 12"""


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
    """All lines, how many objects were read back from the store, and the answer of the query."""

    lines: list[Line]
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
    vault = depthvault.open(site.data_dir)
    coverage = vault.sql("SELECT exchange, channel, avg(share) FROM coverage GROUP BY ALL").fetchall()
    for exchange, channel, share in coverage:
        if (exchange, channel) in lines:
            lines[exchange, channel].coverage = share
    relation = vault.sql(QUERY)
    answer = _table(relation.columns, relation.fetchall())
    return Report(list(lines.values()), len(intact), sum(intact.values()), " ".join(QUERY.split()), answer)


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
    """The lines as a table."""
    found = Table(title="what went through the archive", title_justify="left", header_style="bold", box=None)
    for heading in ("venue", "channel"):
        found.add_column(heading)
    for heading in ("events", "gaps", "duplicates", "coverage", "before", "after", "SHA-256 in store"):
        found.add_column(heading, justify="right")
    for line in report.lines:
        share = "" if line.coverage is None else f"{100 * line.coverage:.1f} %"
        checked = (
            f"{line.verified} of {line.files} ✓"
            if line.verified == line.files
            else f"[red]{line.verified} of {line.files}[/]"
        )
        found.add_row(
            line.exchange, line.channel, f"{line.events:,}", str(line.gaps), str(line.duplicates), share,
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
