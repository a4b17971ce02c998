"""Where things lie under `data_dir`. Every path of the archive is made and read here, nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, unquote

from depthvault.clock import datetime_from_ns
from depthvault.period import HOUR, Period

JOURNAL_SUFFIX = ".journal"
_JOURNAL_STAMP = "%Y%m%dT%H%M%S.%fZ"


def encode_symbol(symbol: str) -> str:
    """A symbol as a path segment: percent-encoded UTF-8, so `SKY/USDC` and `币安人生USDT` are safe everywhere."""
    return quote(symbol, safe="")


def decode_symbol(segment: str) -> str:
    """The symbol of a path segment."""
    return unquote(segment)


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one data directory, for archive periods of `period` length."""

    root: Path
    period: timedelta = HOUR

    # journal/<exchange>/<writer>/<start>.journal

    @property
    def journals(self) -> Path:
        return self.root / "journal"

    def journal(self, exchange: str, writer: str, start_ns: int) -> Path:
        stamp = datetime_from_ns(start_ns).strftime(_JOURNAL_STAMP)
        return self.journals / exchange / writer / f"{stamp}{JOURNAL_SUFFIX}"

    @staticmethod
    def journal_start(path: Path) -> datetime:
        """When the journal at `path` was begun, by its name."""
        return datetime.strptime(path.name.removesuffix(JOURNAL_SUFFIX), _JOURNAL_STAMP).replace(tzinfo=UTC)

    def writers(self, exchange: str) -> list[str]:
        """The writers that have a journal folder for `exchange`, by name."""
        folder = self.journals / exchange
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []

    def journal_files(self, exchange: str, writer: str) -> list[Path]:
        """A writer's journals, oldest first."""
        return sorted((self.journals / exchange / writer).glob(f"*{JOURNAL_SUFFIX}"))

    # accounts/journal/<exchange>/accounts-<writer>/<start>.journal

    @property
    def accounts(self) -> Layout:
        """Where account channels are kept, apart from all market data."""
        return Layout(self.root / "accounts", self.period)

    # live/exchange=E/channel=C/date=D/HH-<writer>.parquet, receipts beside them

    @property
    def live(self) -> Path:
        return self.root / "live"

    def live_file(self, exchange: str, channel: str, period: Period, writer: str, late: Period | None = None) -> Path:
        """A writer's rows of one channel and period; `late` names the later seal unit that brought stragglers."""
        suffix = f".late-{late.label}" if late is not None else ""
        return (
            self.live / f"exchange={exchange}" / f"channel={channel}" / f"date={period.date}"
            / f"{period.name}-{writer}{suffix}.parquet"
        )  # fmt: skip

    def receipts(self, exchange: str) -> Path:
        return self.live / f"exchange={exchange}" / "_receipts"

    def receipt(self, exchange: str, period: Period, writer: str) -> Path:
        return self.receipts(exchange) / f"{period.label}-{writer}.json"

    # archive/: the keys of the object store are the paths below it

    @property
    def archive(self) -> Path:
        return self.root / "archive"

    @property
    def manifests(self) -> Path:
        return self.archive / "_manifests"

    def manifest(self, number: int) -> Path:
        return self.manifests / f"{number:08d}.json"

    @property
    def sha256sums(self) -> Path:
        return self.archive / "SHA256SUMS"

    @staticmethod
    def hour_key(exchange: str, channel: str, period: Period, generation: int) -> str:
        return f"hour/exchange={exchange}/channel={channel}/date={period.date}/{period.name}.g{generation}.parquet"

    @staticmethod
    def day_key(exchange: str, channel: str, symbol: str, date: str, generation: int) -> str:
        folder = f"day/exchange={exchange}/channel={channel}/symbol={encode_symbol(symbol)}"
        return f"{folder}/date={date}.g{generation}.parquet"

    @staticmethod
    def import_key(exchange: str, channel: str, symbol: str, date: str, generation: int) -> str:
        """A symbol's day of rows that an earlier recorder wrote."""
        folder = f"import/exchange={exchange}/channel={channel}/symbol={encode_symbol(symbol)}"
        return f"{folder}/date={date}.g{generation}.parquet"

    @staticmethod
    def import_gaps_key(exchange: str, channel: str, date: str, generation: int) -> str:
        """What cannot be proved of a day of imported rows."""
        return f"import/gaps/exchange={exchange}/channel={channel}/date={date}.g{generation}.parquet"

    @staticmethod
    def quality_key(table: str, exchange: str, channel: str, period: Period, generation: int) -> str:
        """Quality tables lie inside the archive, so that the proof travels with the data."""
        return (
            f"quality/{table}/exchange={exchange}/channel={channel}/date={period.date}/"
            f"{period.name}.g{generation}.parquet"
        )

    def archived(self, key: str) -> Path:
        """The local file of an object key."""
        return self.archive / key

    @property
    def superseded(self) -> Path:
        return self.root / "superseded"

    @property
    def staging(self) -> Path:
        """Compacted but not yet published files."""
        return self.root / "run" / "staging"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def run(self) -> Path:
        """Sockets, weight.sqlite, logs, secrets of the running platform."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.run / "logs"

    def period_of(self, moment: datetime) -> Period:
        """The archive period that holds `moment`."""
        return Period.containing(moment, self.period)
