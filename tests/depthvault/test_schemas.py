"""The data dictionary is complete and consistent."""

from __future__ import annotations

import pyarrow as pa
import pytest

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
