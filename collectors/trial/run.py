"""A trial from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console

from collectors.trial.archiving import Archived, Validate, archive, verified
from collectors.trial.oracle import judge
from collectors.trial.plan import Plan
from collectors.trial.stage import Player, Recorded, Stage
from collectors.trial.verdict import Verdict
from depthvault.errors import UsageError
from simulator.truth import Truth

_KEPT = "kept.json"


class Kept(msgspec.Struct):
    """What the folder of a trial holds beside ledger and data."""

    recorded: Recorded
    archived: Archived


def run(plan: Plan, folder: Path, validate: Validate, console: Console) -> Verdict:
    """Record, archive and judge in `folder`, which must be new or empty. Raises UsageError when it is not."""
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: is not empty; a trial begins with nothing")
    with _progress(console) as tell:

        def recording(players: dict[str, Player], elapsed: float) -> None:
            frames = sum(player.status.get("frames", 0) for player in players.values())
            up = sum(player.settled for player in players.values())
            tell(f"recording {elapsed:.0f} of {plan.seconds:.0f} s: {up} of {len(players)} up, {frames:,} frames")

        with Stage(plan, folder) as stage:
            recorded = stage.run(recording)
        archived = archive(plan.config(folder / "data"), validate, tell)
        (folder / _KEPT).write_bytes(msgspec.json.encode(Kept(recorded, archived)))
        return _judge(plan, folder, recorded, archived, tell)


def again(folder: Path, console: Console) -> Verdict:
    """Judge a trial that was kept in `folder` once more, as it is now."""
    try:
        kept = msgspec.json.decode((folder / _KEPT).read_bytes(), type=Kept)
    except OSError as error:
        raise UsageError(f"{folder}: holds no trial ({error.strerror})") from error
    plan = msgspec.convert(kept.recorded.plan, Plan)
    with _progress(console) as tell:
        tell("verifying")
        archived = verified(plan.config(folder / "data"), kept.archived)
        return _judge(plan, folder, kept.recorded, archived, tell)


def _judge(plan: Plan, folder: Path, recorded: Recorded, archived: Archived, tell: Callable[[str], None]) -> Verdict:
    layout = plan.config(folder / "data").layout
    truth = Truth(folder / "truth")
    return Verdict(
        recorded, archived, {venue: judge(plan, layout, truth, venue, recorded.strokes, tell) for venue in plan.venues}
    )


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    """A line that changes on a terminal; elsewhere nothing is told before the end."""
    with console.status("starting") as status:
        yield status.update
