"""The configuration: one file `depthvault.yaml`, checked on reading.

Precedence: flags, environment (`DEPTHVAULT_EXCHANGES__BINANCE_SPOT__REST_URL=…`, lists and objects as JSON), file,
defaults. Unknown keys and bad values are errors that name the key. Secrets stand in the environment or `.env` alone.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from depthvault.channels import NAMES
from depthvault.durations import Duration
from depthvault.errors import ConfigError
from depthvault.layout import Layout
from depthvault.period import HOUR

DEFAULT_FILE = Path("depthvault.yaml")
FILE_VARIABLE = "DEPTHVAULT_CONFIG"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_symbols(value: Any) -> Any:
    if isinstance(value, str) and value != "all":
        kind, _, count = value.partition(":")
        if kind != "top" or not count.isdigit() or int(count) < 1:
            raise ValueError("write a list of symbols, top:50, or all")
    return value


def _check_channels(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if name not in NAMES:
            raise ValueError(f"no channel {name!r}; there are {', '.join(NAMES)}")
    return value


def _check_period(value: timedelta) -> timedelta:
    if value < timedelta(minutes=1) or value > HOUR or HOUR % value or value % timedelta(minutes=1):
        raise ValueError("a period is 1h or whole minutes that divide the hour (1m, 5m, 10m, …)")
    return value


def _check_encodings(value: dict[str, str]) -> dict[str, str]:
    if value:
        from depthvault.archive.column_encodings import problems  # it brings pyarrow

        if wrong := list(problems(value)):
            raise ValueError("; ".join(wrong))
    return value


Symbols = Annotated[str | tuple[str, ...], BeforeValidator(_check_symbols)]
Channels = Annotated[tuple[str, ...], AfterValidator(_check_channels)]


class ExchangeConfig(_Section):
    """What is recorded of one venue, and how."""

    enabled: bool = True
    symbols: Symbols = Field("top:50", description="a list, `top:N` by 24 h quote volume, or `all`")
    quote: str | None = Field("USDT", description="the quote asset that `top:N` and `all` choose from; null: any")
    channels: Channels = ("depth_diff", "agg_trade", "trade", "book_ticker")
    depth_speed: str = Field(
        "100ms", description="cadence of depth_diff: 100ms, 1000ms; futures also 0ms, 250ms, 500ms"
    )
    depth_levels: Literal[5, 10, 20] = Field(20, description="levels of depth_partial")
    kline_intervals: tuple[str, ...] = ("1m",)
    liquidations: Literal["symbol", "all"] = Field("all", description="per symbol, or the all-market stream")
    accounts: tuple[int, ...] = Field((), description="Lighter: accounts by id to record; kept apart from the market")
    account_channels: tuple[str, ...] = Field(
        ("account_all", "user_stats"), description="of each account; private ones need LIGHTER_AUTH_TOKEN"
    )
    upload_accounts: bool = Field(False, description="put the journals of accounts into the store, too")
    snapshot_limit: int = Field(1000, ge=5, le=5000, description="levels a side of depth_snapshot")
    snapshot_cadence: Duration = Field(timedelta(minutes=1), description="full REST snapshot of every symbol")
    instrument_interval: Duration = timedelta(minutes=5)
    ws_url: str
    rest_url: str
    symbols_per_connection: int = Field(50, ge=1, le=500)
    instances: tuple[str, ...] = Field(("a",), min_length=1)
    shards: int = Field(1, ge=1, le=64)
    max_connection_age: Duration = Field(
        timedelta(hours=23), description="a connection is rolled, with overlap, at this age"
    )
    max_reconnect_attempts: int = Field(30, ge=1)
    reset_reconnect_after: Duration = Field(
        timedelta(minutes=5), description="calm time after which attempts count anew"
    )
    reconnect_backoff: Duration = Field(timedelta(seconds=0.5), description="first wait; doubles, with jitter")
    reconnect_backoff_max: Duration = timedelta(seconds=30)
    resync_grace: Duration = Field(
        timedelta(seconds=3), description="wait for a late frame before a book is seeded anew"
    )
    open_timeout: Duration = Field(
        timedelta(seconds=10), description="for opening a connection, and for a whole REST request"
    )
    stale_after: dict[str, Duration] = Field(
        default_factory=dict, description="per channel: silence after which a stream counts as stale"
    )
    weight_cap: float = Field(0.8, gt=0, le=1, description="share of the venue's REST weight that we use")

    @property
    def symbol_list(self) -> tuple[str, ...] | None:
        """The named symbols, or None when the universe decides."""
        return None if isinstance(self.symbols, str) else self.symbols


class BinanceSpotConfig(ExchangeConfig):
    ws_url: str = "wss://data-stream.binance.vision"
    rest_url: str = "https://data-api.binance.vision"
    channels: Channels = (
        "depth_diff",
        "book_ticker",
        "agg_trade",
        "trade",
        "kline",
        "depth_snapshot",
        "instrument",
    )


class BinanceFuturesConfig(ExchangeConfig):
    ws_url: str = "wss://fstream.binance.com"
    rest_url: str = "https://fapi.binance.com"
    channels: Channels = (
        "depth_diff", "book_ticker", "agg_trade", "trade", "kline", "liquidation", "mark_price",
        "depth_snapshot", "funding_rate", "open_interest", "instrument",
    )  # fmt: skip
    snapshot_limit: Literal[5, 10, 20, 50, 100, 500, 1000] = 1000


class LighterConfig(ExchangeConfig):
    enabled: bool = False
    quote: str | None = None
    ws_url: str = "wss://mainnet.zklighter.elliot.ai/stream"
    rest_url: str = "https://mainnet.zklighter.elliot.ai"
    channels: Channels = (
        "depth_diff", "depth_snapshot", "trade", "liquidation", "mark_price", "open_interest", "instrument",
    )  # fmt: skip
    snapshot_cadence: Duration = Field(
        timedelta(hours=1), description="each book is asked for on a second connection: the book audit's witness"
    )


class Exchanges(_Section):
    binance_spot: BinanceSpotConfig = BinanceSpotConfig()
    binance_futures: BinanceFuturesConfig = BinanceFuturesConfig()
    lighter: LighterConfig = LighterConfig()

    def __getitem__(self, name: str) -> ExchangeConfig:
        if name not in type(self).model_fields:
            raise ConfigError(f"no exchange {name!r}; there are {', '.join(type(self).model_fields)}")
        config: ExchangeConfig = getattr(self, name)
        return config

    def enabled(self) -> dict[str, ExchangeConfig]:
        """The enabled exchanges by name."""
        return {name: self[name] for name in type(self).model_fields if self[name].enabled}


class ArchiveConfig(_Section):
    period: Annotated[Duration, AfterValidator(_check_period)] = HOUR
    seal_grace: Duration = Field(timedelta(seconds=60), description="how long after its end a period is sealed")
    compression_level: int = Field(9, ge=1, le=22, description="ZSTD, of a period's files")
    day_compression_level: int = Field(17, ge=1, le=22, description="ZSTD, of the day files, which stay")
    row_group_rows: int = Field(131_072, ge=1024)
    encodings: Annotated[dict[str, str], AfterValidator(_check_encodings)] = Field(
        default_factory=dict, description="Parquet encodings of columns, by column or table.column; by type otherwise"
    )
    keep: Duration = Field(timedelta(days=7), description="local copies of uploaded archive files")


class JournalConfig(_Section):
    flush_interval: Duration = Field(
        timedelta(milliseconds=250), description="frames reach the file at least this often"
    )
    fsync_interval: Duration = Field(timedelta(seconds=1), description="frames reach the disk at least this often")
    batch_bytes: int = Field(1 << 20, ge=4096, description="frames are written earlier when this much has gathered")
    memory_limit: int = Field(256 << 20, ge=1 << 20, description="bytes of buffered frames that force a flush")
    compression_level: int = Field(1, ge=1, le=19)
    keep: Duration = timedelta(days=7)
    min_free: int = Field(1 << 30, ge=0, description="bytes of free disk below which recording stops, loudly")


class RawConfig(_Section):
    upload: bool = False
    keep: Duration = timedelta(days=30)


class StoreConfig(_Section):
    """The object store. Its address and keys come from `R2_*` in the environment; without them there is none."""

    prefix: str = ""
    region: str = "auto"
    multipart_bytes: int = Field(64 << 20, ge=5 << 20, description="part size, and the size from which parts are used")
    bandwidth: int | None = Field(None, description="bytes per second; null: unlimited")
    attempts: int = Field(5, ge=1)
    conditional: bool = Field(
        True,
        description="it honours If-None-Match; false: it does not (gateways), and one host alone publishes into it",
    )


class IcebergConfig(_Section):
    """The Iceberg catalog that `depthvault iceberg sync` keeps. Its token comes from `ICEBERG_TOKEN`."""

    enabled: bool = Field(False, description="the daily_rollup DAG keeps the tables up to date")
    uri: str | None = Field(None, description="of a REST catalog; null: a SQL catalog under data_dir/iceberg")
    warehouse: str | None = Field(None, description="the catalog's warehouse; null: data_dir/iceberg/warehouse")
    files: Literal["auto", "local", "store"] = Field(
        "auto", description="which copy of the files tables name; auto: the store's when there is one"
    )
    properties: dict[str, str] = Field(default_factory=dict, description="further properties for pyiceberg")


class QualityConfig(_Section):
    """What the expectations hold a period against."""

    clock_warn: Duration = Field(
        timedelta(milliseconds=50), description="a clock that is off by more is worth a word in the validation"
    )
    clock_fail: Duration = Field(
        timedelta(seconds=1),
        description="a clock that is off by more, or frames that come so much before they are sent, degrade a period",
    )
    lag: Duration = Field(timedelta(seconds=10), description="how late frames may be in the mean")


class AlertsConfig(_Section):
    telegram_url: str = "https://api.telegram.org"
    mail_to: tuple[str, ...] = ()
    heartbeat_url: str | None = None
    heartbeat_interval: Duration = timedelta(minutes=1)
    group_interval: Duration = Field(timedelta(minutes=1), description="alerts of the same kind are sent as one")
    max_per_hour: int = Field(10, ge=1)


class PlatformConfig(_Section):
    host: str = "127.0.0.1"
    airflow_port: int = Field(8080, ge=0, le=65535)
    metrics_port: int = Field(9100, ge=0, le=65535, description="the first; each process takes the next")
    ntp_servers: tuple[str, ...] = Field(
        ("pool.ntp.org", "time.cloudflare.com", "time.google.com"),
        description="host or host:port; the clock is held against the first that knows the time, every 10 minutes",
    )
    log_bytes: int = Field(10 << 20, ge=1 << 16)
    log_backups: int = 5


class Secrets(BaseSettings):
    """What must not stand in a file: read from the environment or `.env`, never printed."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True)

    r2_endpoint_url: str | None = None
    r2_access_key_id: SecretStr | None = None
    r2_secret_access_key: SecretStr | None = None
    r2_bucket_name: str | None = None
    telegram_bot_token: SecretStr | None = None
    telegram_chat_id: str | None = None
    iceberg_token: SecretStr | None = None
    lighter_auth_token: SecretStr | None = None
    smtp_host: str | None = None
    smtp_port: int = 587
    smtp_user: str | None = None
    smtp_password: SecretStr | None = None
    smtp_from: str | None = None
    smtp_starttls: bool = True

    @property
    def has_store(self) -> bool:
        return bool(self.r2_bucket_name and self.r2_access_key_id and self.r2_secret_access_key)


class Config(_Section):
    """The whole configuration. Making one reads neither files nor the environment: `load_config` does."""

    data_dir: Path = Path("data")
    exchanges: Exchanges = Exchanges()
    archive: ArchiveConfig = ArchiveConfig()
    journal: JournalConfig = JournalConfig()
    raw: RawConfig = RawConfig()
    store: StoreConfig = StoreConfig()
    iceberg: IcebergConfig = IcebergConfig()
    quality: QualityConfig = QualityConfig()
    alerts: AlertsConfig = AlertsConfig()
    platform: PlatformConfig = PlatformConfig()

    @property
    def layout(self) -> Layout:
        return Layout(self.data_dir, self.archive.period)


class _Environment(BaseSettings, Config):
    """The configuration with what stands in the environment over what it is made of."""

    model_config = SettingsConfigDict(
        env_prefix="DEPTHVAULT_", env_nested_delimiter="__", extra="forbid", frozen=True, env_ignore_empty=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The file comes in through the initial values (load_config), below the environment.
        return env_settings, init_settings


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: the top level must be a mapping, was {type(content).__name__}")
    return content


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def load_config(path: Path | None = None, **flags: Any) -> Config:
    """The configuration of `path` (default: `$DEPTHVAULT_CONFIG`, else `./depthvault.yaml` if it is there).

    `flags` are nested dicts of values that win over everything. Raises ConfigError naming every bad key.
    """
    if path is None and (named := os.environ.get(FILE_VARIABLE)):
        path = Path(named)
    if path is None:
        content = _read(DEFAULT_FILE) if DEFAULT_FILE.exists() else {}
        origin = str(DEFAULT_FILE) if content else "configuration"
    else:
        content, origin = _read(path), str(path)
    return _combined(content, flags, origin)


def environment_config(**flags: Any) -> Config:
    """Defaults and environment alone, without any file; `flags` win over both."""
    return _combined({}, flags, "configuration")


def _combined(content: dict[str, Any], flags: dict[str, Any], origin: str) -> Config:
    try:
        return Config.model_validate(_merge(_Environment(**content).model_dump(), flags))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        )
        raise ConfigError(f"{origin}: {problems}") from error
    except ValueError as error:  # a value in the environment that is not the JSON it must be
        raise ConfigError(f"environment: {error}") from error
