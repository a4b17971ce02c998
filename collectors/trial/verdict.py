"""The verdict of a trial: one table, yes or no, and all figures as JSON."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from collectors.trial.archiving import Archived
from collectors.trial.figures import Cost, costs
from collectors.trial.findings import MUST_BE_ZERO, Findings
from collectors.trial.oracle import Judged
from collectors.trial.stage import Recorded

FLUSH_SECONDS = 0.25
LATE_SECONDS = 0.5
"""What SIGKILL may cost beyond the flush interval: the machine of a trial is busy, and a flush takes time itself."""
KILL_SECONDS = FLUSH_SECONDS + LATE_SECONDS


@dataclass(slots=True)
class Verdict:
    """All that a trial brought to light."""

    recorded: Recorded
    archived: Archived
    judged: dict[str, Judged]

    @property
    def findings(self) -> list[Findings]:
        return [one for judged in self.judged.values() for one in judged.findings]

    @property
    def costs(self) -> list[Cost]:
        return costs(self.recorded)

    @property
    def faults(self) -> Counter[str]:
        """What the simulator did wrong, by kind."""
        return sum((judged.deliveries.kinds for judged in self.judged.values()), Counter())

    def kill_losses(self) -> list[float]:
        """Seconds of frames that each SIGKILL cost: from the last row in the journal of the one that was killed to the
        last event that its partner received before the signal (without a partner: to the signal). Where it had a dead
        connection, unnoticed as yet, a long time says nothing."""
        found = []
        for stroke in self.recorded.strokes:
            journals = self.judged[stroke.exchange].held
            last = journals.last_row(stroke.writer, stroke.time_ns)
            if stroke.signal == "SIGKILL" and last:
                until = journals.last_receipt(stroke.writer, stroke.time_ns) or stroke.time_ns
                loss = max(0.0, (until - last) / 1e9)
                dead = self.judged[stroke.exchange].deliveries.went_dead(last // 1000, until // 1000)
                if loss <= KILL_SECONDS or not dead:
                    found.append(loss)
        return found

    def problems(self) -> list[str]:
        """Why the answer is no; empty: yes."""
        found = [
            f"{one.venue} {one.channel}: {count} {name}"
            for one in self.findings
            for name, count in one.problems.items()
        ]
        found += [
            f"{one.venue} {one.channel}: nothing was archived"
            for one in self.findings
            if not one.archived and one.delivered and one.channel not in ("kline", "liquidation")
        ]
        for venue, judged in self.judged.items():
            if judged.held.damage:
                found.append(f"{venue}: {judged.held.damage} damaged places in journals")
            broken, cut = len(judged.held.broken), judged.deliveries.kinds["malformed"]
            if broken > cut:
                found.append(f"{venue}: {broken} frames are no JSON, the simulator cut {cut}")
        found += [f"verify --deep: {finding}" for finding in self.archived.findings[:20]]
        found += [f"{name} {writer}: exit code {code}" for name, writer, code in self.recorded.exits if code]
        for cost in self.costs:
            if cost.is_flat is False:
                found.append(
                    f"{cost.exchange} {cost.writer}: memory grew {cost.slope / 2**20:+.2f} ± "
                    f"{cost.uncertainty / 2**20:.2f} MB a minute from {cost.anonymous / 2**20:.0f} MB"
                )
        worst = max(self.kill_losses(), default=0.0)
        if worst > KILL_SECONDS:
            found.append(f"a SIGKILL cost {worst:.2f} s of frames, more than the flush interval allows")
        return found

    def to_json(self) -> bytes:
        """Everything, for machines."""
        flat: list[dict[str, Any]] = []
        for cost in self.costs:
            flat.append(
                msgspec.to_builtins(cost)
                | {"cpu_us_per_frame": cost.microseconds, "frames_per_second": cost.rate, "flat": cost.is_flat}
            )
        content = {
            "passed": not self.problems(),
            "problems": self.problems(),
            "plan": self.recorded.plan,
            "seconds": self.recorded.seconds,
            "channels": [msgspec.to_builtins(one) for one in self.findings],
            "collectors": flat,
            "faults": {venue: dict(sorted(one.deliveries.kinds.items())) for venue, one in self.judged.items()},
            "frames_no_json": {venue: len(one.held.broken) for venue, one in self.judged.items()},
            "events": {venue: dict(sorted(one.held.kinds.items())) for venue, one in self.judged.items()},
            "strokes": [msgspec.to_builtins(stroke) for stroke in self.recorded.strokes],
            "kill_losses_seconds": self.kill_losses(),
            "archive": msgspec.to_builtins(self.archived),
            "archive_bytes": {venue: one.bytes for venue, one in self.judged.items()},
            "simulator_cpu_seconds": self.recorded.simulator_cpu,
        }
        return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"

    def write(self, path: Path) -> None:
        """Write the JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.to_json())


_FIGURES = ("generated", "archived", "numbers", "missing", "gaps", "bridged", "unprovable")

_SHORT = {"generated": "events", "unprovable": "unprov."}
_PLAIN: dict[str, Any] = {"title_justify": "left", "box": None, "padding": (0, 1, 0, 0), "pad_edge": False}


def table_of(verdict: Verdict) -> Table:
    """What was compared, and what was wrong. Fits into 80 columns."""
    table = Table(title="the archive against the simulator's truth", **_PLAIN)
    table.add_column("channel", no_wrap=True)
    for name in _FIGURES:
        table.add_column(_SHORT.get(name, name), justify="right", no_wrap=True)
    table.add_column("wrong", justify="right")
    total = Counter[str]()
    for venue, judged in verdict.judged.items():
        table.add_row(f"[bold]{venue}[/]")
        for one in judged.findings:
            figures = {name: getattr(one, name) for name in _FIGURES}
            total.update(figures)
            problems = ", ".join(f"{count} {name}" for name, count in one.problems.items())
            wrong = f"[bold red]{problems}[/]" if problems else "[green]0[/]"
            table.add_row(f" {one.channel}", *(f"{figures[name]:,}" for name in _FIGURES), wrong)
    count = sum(getattr(one, name) for one in verdict.findings for name in MUST_BE_ZERO)
    table.add_row("[bold]all[/]", *(f"{total[name]:,}" for name in _FIGURES), f"{count:,}")
    return table


def costs_of(verdict: Verdict) -> Table:
    """What it cost."""
    table = Table(title="collectors", **_PLAIN)
    table.add_column("collector", no_wrap=True)
    for heading in ("starts", "frames", "per s", "CPU each", "own", "resident", "MB/min", "flat"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cost in verdict.costs:
        slope = f"{cost.slope / 2**20:+.2f}" if math.isfinite(cost.uncertainty) else "-"
        flat = {None: "?", True: "[green]yes[/]", False: "[bold red]no[/]"}[cost.is_flat]
        table.add_row(
            f"{cost.exchange} {cost.writer}", str(cost.processes), f"{cost.frames:,}", f"{cost.rate:,.0f}",
            f"{cost.microseconds:.1f} µs", f"{cost.anonymous / 2**20:.0f} MB" if cost.anonymous else "-",
            f"{cost.rss_max / 2**20:.0f} MB", slope, flat,
        )  # fmt: skip
    return table


def sentences(verdict: Verdict) -> list[str]:
    """The rest, in words."""
    strokes = Counter(stroke.signal for stroke in verdict.recorded.strokes)
    losses = verdict.kill_losses()
    archived = verdict.archived
    said = ", ".join(f"{kind} {count:,}" for kind, count in sorted(verdict.faults.items()))
    struck = ", ".join(f"{name} {count}" for name, count in sorted(strokes.items()))
    if losses:
        struck += f"; the worst SIGKILL cost {max(losses):.2f} s of one instance's frames"
    proved = f"{archived.files} files of {archived.bytes / 2**20:,.1f} MB verified deeply"
    made = f"{archived.receipts} periods sealed at the end, {archived.entries} manifests, {archived.degraded} degraded"
    return [
        f"faults: {said or 'none'}",
        f"signals: {struck or 'none'}",
        f"archive: {made}; {proved}, {len(archived.findings)} findings",
    ]
