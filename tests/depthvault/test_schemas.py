"""The data dictionary is complete and consistent."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest

from depthvault.channels import NAMES
from depthvault.schemas import CHANNELS, COMMON, QUALITY_COLUMNS, TIME, Channel


@pytest.mark.parametrize("channel", CHANNELS.values(), ids=CHANNELS.keys())
def test_every_channel_begins_with_the_common_columns_and_explains_itself(channel: Channel) -> None:
    assert channel.columns[: len(COMMON)] == COMMON
    names = [column.name for column in channel.columns]
    assert len(set(names)) == len(names)
    assert {*channel.key, *channel.time, *channel.order} <= set(names)
    assert channel.id_column is None or channel.id_column in names
    assert all(column.meaning.endswith(".") for column in channel.columns)
    for column in channel.columns:
        if pa.types.is_timestamp(column.type):
            assert column.type == TIME, column.name


def test_quality_tables_explain_themselves() -> None:
    for columns in QUALITY_COLUMNS.values():
        assert all(column.meaning.endswith(".") for column in columns)


def test_the_names_that_stand_apart_from_the_columns_are_all_names_in_order() -> None:
    assert tuple(CHANNELS) == NAMES


def test_neither_help_nor_a_configuration_loads_arrow() -> None:
    script = (
        "import sys\n"
        "import depthvault.cli\n"
        "assert 'depthvault.config' not in sys.modules\n"
        "import depthvault.config\n"
        "depthvault.config.Config()\n"
        "assert not {'pyarrow', 'duckdb', 'numpy', 'pandas'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
