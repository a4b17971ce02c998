"""`make bench`: every benchmark, one after the other. `python -m benchmarks NAME …` runs some."""

from __future__ import annotations

import subprocess
import sys

ALL = ("decode", "journal", "collector", "compaction", "replay", "follow", "query", "log")


def main(names: list[str]) -> int:
    """Run the benchmarks `names` (default: all), each in a process of its own. Returns how many failed."""
    unknown = [name for name in names if name not in ALL]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(ALL)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names or ALL:
        print(f"\n=== {name}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
