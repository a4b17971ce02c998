"""All steps for all that is ready, in one process: what Airflow does in one task each."""

from __future__ import annotations

from depthvault.archive.compact import compact, ready_units
from depthvault.archive.publish import publish
from depthvault.config import Secrets, load_config
from expectations import validate


def main() -> None:
    """Until nothing is ready."""
    config = load_config()
    while units := ready_units(config.layout, config):
        unit = units[0]
        compact(config.layout, config, unit.exchange, unit.period)
        validate(config.layout, config, unit.exchange, unit.period)
        publish(config.layout, config, Secrets(), unit)


if __name__ == "__main__":
    main()
