"""Keeping Airflow itself small: a minutely DAG leaves 1440 runs and logs a day."""

from __future__ import annotations

import os
import shutil
import time
from datetime import timedelta
from pathlib import Path

KEEP_RUNS = timedelta(days=14)
KEEP_LOGS = timedelta(days=7)


def clean_database() -> str:
    """Delete Airflow's records of runs that are older than two weeks. The archive's own log is elsewhere."""
    import subprocess
    import sys
    from datetime import UTC, datetime

    # What a task's process hides from user code would hide the database from the command line too.
    hidden = ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CORE__SQL_ALCHEMY_CONN")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    before = (datetime.now(UTC) - KEEP_RUNS).strftime("%Y-%m-%dT%H:%M:%S+00:00")
    # Tasks may not touch Airflow's database themselves; its own command line may.
    done = subprocess.run(
        [
            sys.executable, "-m", "airflow", "db", "clean",
            "--clean-before-timestamp", before, "--skip-archive", "--yes",
        ],
        capture_output=True, text=True, check=False, timeout=1800, env=environment,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"airflow db clean failed: {(done.stderr or done.stdout).strip()[-500:]}")
    line = f"records before {before} are deleted"
    print(line)
    return line


def prune_logs(folder: Path, now: float | None = None) -> str:
    """Delete task logs that are older than a week, and folders that are empty then. Follows no links."""
    cutoff = (time.time() if now is None else now) - KEEP_LOGS.total_seconds()
    files, freed = 0, 0
    for path in sorted(folder.rglob("*"), reverse=True):  # children before their folders
        if path.is_symlink():
            continue
        status = path.stat()
        if status.st_mtime >= cutoff:
            continue
        if path.is_file():
            path.unlink()
            files, freed = files + 1, freed + status.st_size
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    free = shutil.disk_usage(folder).free
    line = f"{files} logs deleted, {freed / 1e6:.1f} MB freed, {free / 1e9:.1f} GB free on that disk"
    print(line)
    return line


def prune_airflow_logs() -> str:
    """Prune the folder that Airflow logs into."""
    from airflow.sdk import conf

    return prune_logs(Path(conf.get("logging", "base_log_folder")))
