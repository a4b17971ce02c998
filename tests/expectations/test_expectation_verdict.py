"""The task: verdicts beside what compaction staged, repeatable byte for byte, and nothing written elsewhere."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from depthvault.archive import log
from depthvault.archive.manifest import ArchiveFile, Counts, Entry, SymbolSpan, Tail
from depthvault.archive.publish import publish_with
from depthvault.archive.staging import Compacted, Staging, Unit
from depthvault.config import Config, load_config
from depthvault.durable import sha256_file
from depthvault.layout import Layout
from depthvault.period import Period
from depthvault.schemas import CHANNELS, QUALITY
from expectations import validate
from tests.expectations.healthy_periods import PERIOD, SYMBOLS, healthy
from tests.expectations.test_candles import SYMBOL, USUAL, candle, trades

EXCHANGE = "binance_futures"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(data_dir=tmp_path / "data", archive={"period": "1m"})


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def put(staging: Staging, key: str, table: pa.Table, name: str) -> ArchiveFile:
    path = staging.path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    spans = {}
    if name in CHANNELS:
        spans = {symbol: SymbolSpan(1, 0, 0, (0, 1)) for symbol in table["symbol"].unique().to_pylist()}
    return ArchiveFile(key, sha256_file(path), path.stat().st_size, table.num_rows, "", name, symbols=spans)


def stage(
    config: Config,
    rows: dict[str, list[dict[str, Any]]],
    *,
    period: Period = PERIOD,
    symbols: tuple[str, ...] = SYMBOLS,
    tails: dict[str, int] | None = None,
) -> Staging:
    """A staging folder as compaction leaves it, with one draft a channel. tails: last ids of `agg_trade`."""
    staging = Staging(config.layout, Unit(EXCHANGE, period))
    drafts = []
    for channel, content in rows.items():
        table = pa.Table.from_pylist(content, schema=CHANNELS[channel].schema)
        coverage = pa.Table.from_pylist(
            [
                {"exchange": EXCHANGE, "channel": channel, "symbol": symbol, "period": period.start, "duplicates": 0}
                | {"events": sum(row["symbol"] == symbol for row in content)}
                | {"gaps": 0, "covered_seconds": 60.0, "share": 1.0}
                for symbol in symbols
            ],
            schema=QUALITY["coverage"],
        )
        key = Layout.quality_key("coverage", EXCHANGE, channel, period, 1)
        ends = {symbol: {"": Tail(0, final_id)} for symbol, final_id in (tails or {}).items()}
        files = [
            put(staging, Layout.hour_key(EXCHANGE, channel, period, 1), table, channel),
            put(staging, key, coverage, "coverage"),
        ]
        drafts.append(
            Entry(
                number=0, previous=None, kind="hour", exchange=EXCHANGE, channel=channel, period=period.label,
                period_minutes=1, generation=1, created="", publisher="", software="", schema_version=1, libraries={},
                inputs=[], add=files, remove=[], counts=Counts(rows=table.num_rows),
                tails=ends if channel == "agg_trade" else {},
            )
        )  # fmt: skip
    staging.write(Compacted(EXCHANGE, period.label, 1, drafts))
    return staging


def test_a_healthy_period_is_available_and_a_faulty_channel_degrades_itself_alone(config: Config) -> None:
    trades = healthy("agg_trade")
    del trades[7]
    staging = stage(config, {"depth_diff": healthy("depth_diff"), "agg_trade": trades})
    judgement = validate(config.layout, config, EXCHANGE, PERIOD)
    assert judgement.condition == "degraded"
    assert str(judgement).startswith("binance_futures 2026-11-20 04:00 UTC: degraded, ")
    validation = staging.read_validation()
    assert validation is not None
    verdicts = {verdict.channel: verdict for verdict in validation.verdicts}
    assert verdicts["depth_diff"].condition == "available"
    assert verdicts["depth_diff"].failed == []
    assert verdicts["agg_trade"].condition == "degraded"
    assert verdicts["agg_trade"].failed == [
        "BTCUSDT: breaks_undeclared is 1 (every break of the chain is declared in gaps)"
    ]


def test_hour_metrics_hold_every_figure_with_its_judgement(config: Config) -> None:
    trades = healthy("agg_trade")
    del trades[7]
    staging = stage(config, {"agg_trade": trades})
    validate(config.layout, config, EXCHANGE, PERIOD)
    validation = staging.read_validation()
    assert validation is not None
    (file,) = validation.verdicts[0].files
    path = staging.path(file.path)
    assert (file.sha256, file.bytes, file.table) == (sha256_file(path), path.stat().st_size, "hour_metrics")
    table = pq.read_table(path, partitioning=None)
    assert table.num_rows == file.rows
    figures = {(row["symbol"], row["metric"]): (row["value"], row["passed"]) for row in table.to_pylist()}
    assert figures[("BTCUSDT", "breaks_undeclared")] == (1.0, False)
    assert figures[("BTCUSDT", "breaks")] == (1.0, None)  # a figure that no rule judges
    assert figures[("BTCUSDT", "rows")] == (49.0, True)
    assert figures[("币安人生USDT", "rows")] == (50.0, True)
    assert figures[("", "rows_difference")] == (0.0, True)


def test_a_second_run_changes_no_byte(config: Config) -> None:
    staging = stage(config, {channel: healthy(channel) for channel in ("depth_diff", "book_ticker")})
    validate(config.layout, config, EXCHANGE, PERIOD)
    first = tree(staging.folder)
    validate(config.layout, config, EXCHANGE, PERIOD)
    assert tree(staging.folder) == first
    assert "validation.json" in first


def test_a_file_that_changed_after_compaction_degrades_its_channel(config: Config) -> None:
    staging = stage(config, {"trade": healthy("trade")})
    path = staging.path(Layout.hour_key(EXCHANGE, "trade", PERIOD, 1))
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(rows.set_column(6, "trade_id", pa.array(range(rows.num_rows), pa.int64())), path)
    judgement = validate(config.layout, config, EXCHANGE, PERIOD)
    assert [(check.channel, check.metric) for check in judgement.failures] == [("trade", "sha256_difference")]


def test_with_nothing_staged_there_is_nothing_to_judge(config: Config) -> None:
    judgement = validate(config.layout, config, EXCHANGE, PERIOD)
    assert (judgement.judged, judgement.passed) == (0, True)


def test_a_channel_that_was_silent_is_judged_by_its_coverage(config: Config) -> None:
    stage(config, {"liquidation": []})
    judgement = validate(config.layout, config, EXCHANGE, PERIOD)
    assert judgement.passed, str(judgement)
    assert {check.symbol for check in judgement.checks} == {"", *SYMBOLS}


def test_nothing_is_written_outside_the_data_folder(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, home = tmp_path / "cwd", tmp_path / "home"
    elsewhere.mkdir()
    home.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HOME", str(home))
    staging = stage(config, {"trade": healthy("trade")})
    before = tree(config.data_dir)
    validate(config.layout, config, EXCHANGE, PERIOD)
    assert tree(elsewhere) == {}
    assert tree(home) == {}
    new = set(tree(config.data_dir)) - set(before)
    assert all((config.data_dir / name).is_relative_to(staging.folder) for name in new), new


def test_a_candle_at_the_turn_of_a_period_is_judged_with_the_published_trades_before(config: Config) -> None:
    """The trades after the last candle of a period, and before the first one, stand in other files."""

    def judged(number: int, minute: list[dict[str, Any]], tape: list[dict[str, Any]]) -> dict[str, float | None]:
        period = periods[number]
        stage(
            config, {"kline": minute, "agg_trade": tape}, period=period, symbols=(SYMBOL,),
            tails={SYMBOL: tape[-1]["agg_trade_id"]},
        )  # fmt: skip
        judgement = validate(config.layout, config, EXCHANGE, period)
        assert validate(config.layout, config, EXCHANGE, period) == judgement
        failures[number] = [check.metric for check in judgement.failures]
        publish_with(config.layout, None, Unit(EXCHANGE, period))
        figures = {check.metric: check.value for check in judgement.checks if check.channel == "kline"}
        return {name: figures[f"candles_{name}"] for name in ("judged", "waiting", "undecidable", "refuted")}

    def shifted(number: int) -> list[dict[str, Any]]:
        within = [(second + 60 * number, price, quantity) for second, price, quantity in USUAL[1:-1]]
        last = (within[-1][0] + 2, 11.0, 1.0)  # in the minute's last second, and so in nobody's for sure
        tape = trades(*within, last, start=10 + 5 * number)
        return [row | {"is_buyer_maker": bool(place & 1)} for place, row in enumerate(tape)]

    periods = [PERIOD, PERIOD.next(), PERIOD.next().next()]
    failures: dict[int, list[str]] = {}
    # The first candle is not judged: what was before its first trade nobody knows.
    nothing = {"judged": 0, "undecidable": 0, "refuted": 0}
    assert judged(0, [candle()], shifted(0)) == nothing | {"waiting": 1}
    wrong = candle(60, volume=Decimal("3.2000001"), trade_count=5)
    assert judged(1, [wrong], shifted(1)) == nothing | {"waiting": 1, "undecidable": 1}
    assert judged(2, [candle(120)], shifted(2)) == {"judged": 1, "waiting": 1, "undecidable": 0, "refuted": 1}
    assert failures == {0: [], 1: [], 2: ["1m 2026-11-20T04:01:00Z volume", "candles_refuted"]}
    state = log.load(config.layout)
    entry = state.entry("hour", EXCHANGE, "kline", periods[2].label)
    assert entry is not None
    assert (entry.condition, len(entry.failed)) == ("degraded", 2)
    assert "1m 2026-11-20T04:01:00Z volume" in entry.failed[0]


def test_bounds_of_the_clock_are_configured(tmp_path: Path) -> None:
    late = [dict(row) for row in healthy("book_ticker")]
    for row in late:
        row["received_time"] = row["event_time"] - timedelta(milliseconds=100)
    for bounds, condition, said in (
        ({}, "available", 2),
        ({"clock_warn": "200ms"}, "available", 0),
        ({"clock_fail": "90ms"}, "degraded", 2),
    ):
        config = load_config(data_dir=tmp_path / "data", archive={"period": "1m"}, quality=bounds)
        stage(config, {"book_ticker": late})
        judgement = validate(config.layout, config, EXCHANGE, PERIOD)
        assert (judgement.condition, len(judgement.warnings)) == (condition, said)
