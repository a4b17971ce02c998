"""What is recorded and archived, as tables for `depthvault status`. Reads files only, so it works while all is down."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from depthvault.archive import log
from depthvault.config import Config, Secrets
from depthvault.errors import ArchiveError
from depthvault.report import disk
from depthvault.report.words import lasting, size

STALE_SECONDS = 10.0
"""A collector writes its figures each second; older ones are of a process that hangs or is gone."""


def collectors_table(config: Config) -> Table | None:
    """One row a running collector (`breaks`: connections lost), its troubles below; None when there is none."""
    rows = [figures for path in sorted((config.layout.run / "collectors").glob("*.json")) if (figures := _read(path))]
    if not rows:
        return None
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    for heading in ("collector", "symbols", "frames/s", "lag", "gaps", "breaks", "memory", "CPU"):
        table.add_column(heading, justify="left" if heading == "collector" else "right", no_wrap=True)
    troubled = []
    for row in rows:
        age = time.time() - row["updated_ns"] / 1e9
        problems = "; ".join(row["problems"]) or ("" if age < STALE_SECONDS else f"said nothing for {age:.0f} s")
        table.add_row(
            f"{row['exchange']} {row['writer']}", str(row["symbols"]), f"{row['frames_per_second']:,.0f}",
            f"{row['lag_ms']:,.0f} ms", f"[bold red]{row['gaps']}[/]" if row["gaps"] else "0", str(row["disconnects"]),
            size(row["rss_bytes"]), f"{100 * row['cpu_s'] / max(row['uptime_s'], 1):.0f} %",
        )  # fmt: skip
        if problems:
            troubled.append(f"{row['exchange']} {row['writer']}: {problems}")
    table.caption = "\n".join(troubled) or None
    table.caption_style, table.caption_justify = "red", "left"
    return table


def _read(path: Any) -> dict[str, Any] | None:
    try:
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return figures


def archive_line(config: Config) -> str | None:
    """What the archive holds: manifests, files, bytes, the newest period of each venue."""
    try:
        state = log.load(config.layout)
    except ArchiveError as error:
        return f"[bold red]archive: {error}[/]"
    if not state.number:
        return None
    newest: dict[str, str] = {}
    for entry in state.current.values():
        if entry.period is not None:
            newest[entry.exchange] = max(newest.get(entry.exchange, ""), entry.period)
    held = sum(file.bytes for file in state.files.values())
    shown = ", ".join(f"{name} up to {label[:8]} {label[9:11]}:{label[11:]}" for name, label in sorted(newest.items()))
    return f"archive: {state.number:,} manifests, {len(state.files):,} files, {size(held)}; {shown}"


def disk_line(config: Config) -> str | None:
    """How long the disk will last, and whether anything is ever deleted."""
    if not config.layout.root.is_dir():
        return None
    measured = disk.measure(config.layout, datetime.now(UTC))
    line = f"disk: {size(measured.free)} free, {size(measured.a_day)} a day, {lasting(measured.days_left)} left"
    return line if Secrets().has_store else f"{line}; [yellow]no object store: nothing is ever deleted[/]"
