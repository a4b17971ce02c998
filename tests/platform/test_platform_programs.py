"""One program for each exchange, instance and shard; stopped before what they lean on."""

from __future__ import annotations

from configparser import RawConfigParser
from pathlib import Path

from depthvault.config import Config
from depthvault.platform.programs import collector_programs, collectors, stopping_stages

ROOT = Path(__file__).resolve().parents[2]


def config(**spot: object) -> Config:
    return Config.model_validate({"exchanges": {"binance_spot": spot, "binance_futures": {"enabled": False}}})


def parsed(text: str) -> RawConfigParser:
    parser = RawConfigParser(inline_comment_prefixes=(" ;",))
    parser.read_string(text)
    return parser


def test_every_enabled_exchange_instance_and_shard_is_one_program() -> None:
    found = collectors(config(instances=["a", "b"], shards=2))
    assert [collector.name for collector in found] == [
        "collector-binance_spot-a-0-of-2",
        "collector-binance_spot-a-1-of-2",
        "collector-binance_spot-b-0-of-2",
        "collector-binance_spot-b-1-of-2",
    ]
    assert found[1].options == "collect binance_spot --instance a --shard 1/2"


def test_an_unsharded_collector_gets_no_shard_option() -> None:
    assert [collector.options for collector in collectors(config())] == ["collect binance_spot --instance a"]


def test_the_programs_stop_as_a_group_and_come_back() -> None:
    parser = parsed(collector_programs(config(instances=["a", "b"])))
    assert parser.sections() == ["program:collector-binance_spot-a", "program:collector-binance_spot-b"]
    for section in parser.sections():
        assert parser[section]["stopasgroup"] == parser[section]["killasgroup"] == "true"
        assert parser[section]["autorestart"] == "true"


def test_a_collector_is_told_of_its_own_settings_only() -> None:
    both = {"exchanges": {"binance_spot": {}, "binance_futures": {}}}
    before = {collector.name: collector.settings for collector in collectors(Config.model_validate(both))}
    both["exchanges"]["binance_spot"] = {"symbols": ["BTCUSDT"]}
    after = {collector.name: collector.settings for collector in collectors(Config.model_validate(both))}
    assert before["collector-binance_spot-a"] != after["collector-binance_spot-a"]
    assert before["collector-binance_futures-a"] == after["collector-binance_futures-a"]


def test_no_setting_of_a_collector_stands_in_its_command_line() -> None:
    text = collector_programs(config(rest_url="http://127.0.0.1:1/secret-path"))
    assert "secret-path" not in text


def test_collectors_stop_first_and_the_database_last() -> None:
    stages = stopping_stages([
        "postgres", "airflow-scheduler", "sealer", "collector-binance_spot-a", "airflow-api-server", "alerting",
        "collector-lighter-b", "airflow-triggerer",
    ])  # fmt: skip
    assert stages == [
        ["airflow-scheduler", "collector-binance_spot-a", "collector-lighter-b", "airflow-triggerer"],
        ["sealer", "airflow-api-server"],
        ["postgres", "alerting"],
    ]


def test_the_repository_s_programs_all_restart_and_leave_no_orphans() -> None:
    parser = RawConfigParser(inline_comment_prefixes=(" ;",))
    parser.read(ROOT / "supervisord.conf", encoding="utf-8")
    programs = [name for name in parser.sections() if name.startswith(("program:", "eventlistener:"))]
    assert len(programs) >= 8
    for name in programs:
        assert parser[name]["autorestart"] == "true", name
        assert parser[name]["killasgroup"] == "true", name
        assert "_maxbytes" in " ".join(parser[name]), f"{name} has no rotating log"
        # PostgreSQL's postmaster tells its children itself: a signal to the group would be a crash to it.
        if name != "program:postgres":
            assert parser[name]["stopasgroup"] == "true", name
