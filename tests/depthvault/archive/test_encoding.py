"""What archive files are like inside: encodings, ZSTD, statistics and page indexes, by default and as configured."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from depthvault.archive import log
from depthvault.archive.compact import compact
from depthvault.archive.publish import publish_with
from depthvault.archive.rollup import rollup_with
from depthvault.archive.staging import Unit
from depthvault.archive.verify import verify
from depthvault.config import load_config
from depthvault.errors import ConfigError
from depthvault.schemas import CHANNELS, QUALITY

from .sealed import FUTURES, HOUR, Host, trade_rows
from .test_auditing import Market, record

DAY = date(2026, 11, 20)


def archived(root: Path, **archive: object) -> Host:
    host = Host(root, {"archive": archive} if archive else {})
    diffs, snapshots = record(Market())
    host.seal("a", {"depth_diff": diffs, "depth_snapshot": snapshots, "agg_trade": trade_rows(range(1, 500), "a")})
    compact(host.layout, host.config, FUTURES, HOUR)
    publish_with(host.layout, None, Unit(FUTURES, HOUR))
    return host


def files(host: Host) -> dict[str, pq.FileMetaData]:
    """The footers of all data and quality files, by table."""
    state = log.load(host.layout)
    return {file.table: pq.read_metadata(host.layout.archived(path)) for path, file in state.files.items()}


def columns(footer: pq.FileMetaData) -> dict[str, pq.ColumnChunkMetaData]:
    """The columns of the first row group by name."""
    group = footer.row_group(0)
    parts = [group.column(place) for place in range(footer.num_columns)]
    return {part.path_in_schema.split(".")[0]: part for part in parts}


@pytest.fixture(params=["hour", "day"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    host = archived(tmp_path)
    if request.param == "day":
        assert len(rollup_with(host.layout, host.config, None, FUTURES, DAY).entries) == 3
    return host


def test_ids_and_times_are_deltas_and_what_repeats_has_a_dictionary(host: Host) -> None:
    found = files(host)
    assert {"depth_diff", "depth_snapshot", "agg_trade", "coverage", "book_audit"} <= found.keys()
    for table, footer in found.items():
        schema = CHANNELS[table].schema if table in CHANNELS else QUALITY[table]
        for name, part in columns(footer).items():
            kind = schema.field(name).type
            if pa.types.is_integer(kind) or pa.types.is_timestamp(kind):
                assert "DELTA_BINARY_PACKED" in part.encodings, (table, name)
                assert not part.has_dictionary_page, (table, name)
            elif not pa.types.is_boolean(kind) and not pa.types.is_decimal(kind):
                assert part.has_dictionary_page, (table, name)
                assert "RLE_DICTIONARY" in part.encodings, (table, name)


def test_everything_is_zstd_and_has_statistics_and_a_page_index(host: Host) -> None:
    for table, footer in files(host).items():
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            for place in range(footer.num_columns):
                part = group.column(place)
                where = (table, number, part.path_in_schema)
                assert part.compression == "ZSTD", where
                assert part.is_stats_set, where
                assert part.statistics.has_null_count, where
                assert part.statistics.has_min_max or part.statistics.null_count == part.num_values, where
                assert part.has_column_index, where
                assert part.has_offset_index, where


def test_statistics_are_those_of_the_rows(host: Host) -> None:
    state = log.load(host.layout)
    (path,) = [path for path, file in state.files.items() if file.table == "depth_diff"]
    table = pq.read_table(host.layout.archived(path))
    part = columns(pq.read_metadata(host.layout.archived(path)))["final_update_id"]
    ids = table.column("final_update_id").to_pylist()
    assert (part.statistics.min, part.statistics.max, part.statistics.null_count) == (min(ids), max(ids), 0)


def test_the_level_and_the_row_groups_are_those_asked_for(tmp_path: Path) -> None:
    quick = files(archived(tmp_path / "1", compression_level=1, row_group_rows=1024))
    small = files(archived(tmp_path / "19", compression_level=19, row_group_rows=1024))
    assert sum(part.total_compressed_size for part in columns(quick["depth_diff"]).values()) > sum(
        part.total_compressed_size for part in columns(small["depth_diff"]).values()
    )


def test_columns_are_encoded_as_configured_and_hold_the_same(tmp_path: Path) -> None:
    usual = archived(tmp_path / "usual")
    chosen = {
        "depth_diff.bid_sizes": "byte_stream_split", "price": "plain", "instance": "delta_byte_array",
        "coverage.events": "plain", "agg_trade.agg_trade_id": "dictionary",
    }  # fmt: skip
    host = archived(tmp_path / "chosen", encodings=chosen)
    found = files(host)
    assert "BYTE_STREAM_SPLIT" in columns(found["depth_diff"])["bid_sizes"].encodings
    assert "RLE_DICTIONARY" in columns(found["depth_snapshot"])["bid_sizes"].encodings, "named for depth_diff alone"
    assert not columns(found["agg_trade"])["price"].has_dictionary_page
    assert columns(found["agg_trade"])["agg_trade_id"].has_dictionary_page
    assert "DELTA_BINARY_PACKED" not in columns(found["coverage"])["events"].encodings
    for table in ("depth_diff", "agg_trade", "depth_snapshot"):
        assert "DELTA_BYTE_ARRAY" in columns(found[table])["instance"].encodings
    rollup_with(host.layout, host.config, None, FUTURES, DAY)
    assert "BYTE_STREAM_SPLIT" in columns(files(host)["depth_diff"])["bid_sizes"].encodings

    def values(one: Host) -> dict[str, str]:
        entries = log.load(one.layout).files | log.load(one.layout).superseded
        return {file.table: file.logical_sha256 for path, file in sorted(entries.items()) if path.startswith("hour/")}

    assert values(host) == values(usual)
    assert verify(host.layout, deep=True).findings == []


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        ({"bid_prizes": "plain"}, r"archive\.encodings: bid_prizes: no table has such a column"),
        ({"trade.bid_prices": "plain"}, r"archive\.encodings: trade\.bid_prices: no table has such a column"),
        ({"price": "zip"}, r"archive\.encodings: price: no encoding 'zip'; there are dictionary, delta_binary_packed"),
        (
            {"bid_prices": "delta_binary_packed"},
            r"archive\.encodings: bid_prices: delta_binary_packed cannot hold double",
        ),
        ({"is_snapshot": "dictionary"}, r"archive\.encodings: is_snapshot: dictionary cannot hold bool"),
    ],
)
def test_a_wrong_choice_is_an_error_that_names_the_column(chosen: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_config(None, archive={"encodings": chosen})


def test_encodings_come_from_the_file_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "depthvault.yaml"
    path.write_text("archive:\n  encodings:\n    price: plain\n")
    assert load_config(path).archive.encodings == {"price": "plain"}
    monkeypatch.setenv("DEPTHVAULT_ARCHIVE__ENCODINGS", '{"quantity": "plain"}')
    assert load_config(path).archive.encodings["quantity"] == "plain"
