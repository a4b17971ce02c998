"""The demo: the whole platform on the bundled simulator, from an empty folder to a verified archive.

It has its own data directory (`./data/demo`, `$DEPTHVAULT_DEMO_DIR`), its own S3 server with generated keys and its own
Airflow; nothing of a real installation is read or touched.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from depthvault.config import Config, environment_config
from depthvault.errors import DepthvaultError, PlatformError
from depthvault.platform import airflow_api, control, demo_report
from depthvault.platform.control import ProgramFailedError
from depthvault.platform.demo_progress import Progress, watch
from depthvault.platform.down import stop
from depthvault.platform.ports import Ports
from depthvault.platform.progress import Steps
from depthvault.platform.site import DEMO_MARK, Site
from depthvault.platform.up import SIMULATOR_PORT, start

DIRECTORY_VARIABLE = "DEPTHVAULT_DEMO_DIR"
SYMBOLS = ("BTCUSDT", "ETHUSDT", "XRPUSDT", "SOLUSDT", "BNBUSDT", "DOGEUSDT")
VENUES = {"binance_spot": "spot", "binance_futures": "futures"}
CHANNELS = ("depth_diff", "book_ticker", "agg_trade", "trade", "depth_snapshot", "instrument")
PERIODS = 2
"""How many periods must be archived, the later ones whole, before the demo counts as shown."""
TIMEOUT = timedelta(minutes=6)


def demo_directory() -> Path:
    """Where the demo keeps its data."""
    return Path(os.environ.get(DIRECTORY_VARIABLE) or "data/demo").absolute()


def demo_config(data_dir: Path, *, simulator_port: int, airflow_port: int = 8080) -> Config:
    """The demo's configuration: both Binance venues on the simulator, periods of one minute.

    The environment still wins, so that `DEPTHVAULT_PLATFORM__AIRFLOW_PORT` works here too.
    """
    venues: dict[str, dict[str, object]] = {
        name: {
            "symbols": SYMBOLS,
            "channels": CHANNELS,
            "ws_url": f"ws://127.0.0.1:{simulator_port}/{path}",
            "rest_url": f"http://127.0.0.1:{simulator_port}/{path}",
        }
        for name, path in VENUES.items()
    }
    # Two collectors side by side: what both recorded is archived once.
    venues["binance_futures"]["instances"] = ("a", "b")
    return Config.model_validate({
        **environment_config(data_dir=data_dir).model_dump(),
        "exchanges": venues,
        "archive": {"period": "1m", "seal_grace": "5s"},
        "platform": environment_config().platform.model_copy(update=_airflow_port(airflow_port)).model_dump(),
    })  # fmt: skip


def _airflow_port(port: int) -> dict[str, int]:
    return {} if os.environ.get("DEPTHVAULT_PLATFORM__AIRFLOW_PORT") else {"airflow_port": port}


def simulator_options(site: Site) -> str:
    """The simulator's command line: deterministic, with its ledger of the truth beside the data."""
    return (
        f"--port {site.ports.get('simulator')} --seed 7 --symbols {len(SYMBOLS)} --rate 5"
        f" --venues {' '.join(VENUES)} --truth {shlex.quote(str(site.data_dir / 'truth'))}"
    )


def demo(console: Console | None = None) -> int:
    """Run the demo. Returns 0 with everything still up, or 1 with the failing part's last log lines and all stopped."""
    out = console or Console(highlight=False)
    began = time.monotonic()
    directory = demo_directory()
    try:
        site = _site(directory)
    except DepthvaultError as error:
        out.print(f"[bold red]error:[/] {error}", soft_wrap=True)
        return 1
    out.print(f"[bold]Depthvault demo[/] in {directory}", soft_wrap=True)
    try:
        start(site, Steps(out), simulator=simulator_options(site))
        _write_keys(site)
        progress = watch(site, out, PERIODS, TIMEOUT.total_seconds())
        _report(site, out, progress)
    except (DepthvaultError, KeyboardInterrupt) as error:
        if isinstance(error, DepthvaultError):
            _explain(site, out, error)
        if control.connect(site) is not None:
            stop(site, Steps(out))
        return 1
    out.print(f"\nThe demo took {time.monotonic() - began:.0f} s. It stays up until `make down`.", soft_wrap=True)
    return 0


def _site(directory: Path) -> Site:
    """The demo's site in an emptied directory, or the running demo's."""
    supervision = directory / "run" / "supervisor"
    ports = Ports(supervision / "ports.json")
    probe = Site.of(Config(data_dir=directory), demo=True)
    if control.connect(probe) is None:
        control.sweep(probe)
        _empty(directory)
        supervision.mkdir(parents=True)
        ports.choose({}, ("simulator",), {"simulator": SIMULATOR_PORT})
    return Site.of(demo_config(directory, simulator_port=ports.get("simulator")), demo=True)


def _empty(directory: Path) -> None:
    """Begin anew: the simulator counts its ids from the beginning, which an older archive would rightly refuse."""
    if directory.exists() and any(directory.iterdir()) and not (directory / DEMO_MARK).exists():
        raise PlatformError(
            f"{directory} is not empty and was not made by the demo; choose another with {DIRECTORY_VARIABLE}"
        )
    try:
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True)
        (directory / DEMO_MARK).touch()
    except OSError as error:
        raise PlatformError(f"{error.filename or directory} cannot be written: {error.strerror}") from error


def _write_keys(site: Site) -> None:
    """The store's keys as `.env`, where commands that are run in the demo's folder look for them."""
    path = site.data_dir / ".env"
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}={value}\n" for name, value in site.demo_store().items()), encoding="utf-8")


def _explain(site: Site, out: Console, error: DepthvaultError) -> None:
    out.print(f"\n[bold red]error:[/] {error}", soft_wrap=True, markup=True)
    if isinstance(error, ProgramFailedError) and error.log_tail:
        out.print(f"last lines of {error.program}:", soft_wrap=True)
        out.print(error.log_tail, markup=False, soft_wrap=True)
        out.print(f"all logs: {site.logs}", soft_wrap=True)


def _report(site: Site, out: Console, progress: Progress) -> None:
    report = demo_report.gather(site)
    out.print()
    out.print(demo_report.table(report))
    begun, *whole = report.conditions.items()
    out.print(
        "\nduplicates: what both futures collectors recorded, archived once. before: sealed Parquet, after: ZSTD"
        f" archive. coverage: of the periods after {begun[0]}, in which recording began; snapshots come from Airflow,"
        " which was up later.\n"
        f"periods: {', '.join(f'{period} {condition}' for period, condition in [begun, *whole])}\n"
        f"{progress.frames:,} frames, {report.journals / 2**20:.1f} MiB of journals, {report.archived / 2**20:.1f} MiB"
        f" archived; {report.objects} objects read back from the store, {report.verified} with the SHA-256 of their"
        " manifest",
        soft_wrap=True,
    )
    if report.verified != report.objects:
        raise PlatformError(f"{report.objects - report.verified} objects in the store differ from their manifests")
    out.print(f'\n[dim]$ depthvault sql "{report.query}"[/]', soft_wrap=True)
    out.print(report.answer)
    out.print(f"\nAirflow   {site.airflow_url}", soft_wrap=True)
    out.print(f"user      {airflow_api.ADMIN}", soft_wrap=True)
    out.print(f"password  {site.secrets.read('airflow_admin_password')}", markup=False, soft_wrap=True)
    out.print(
        f"\n$ source {sys.prefix}/bin/activate; cd {site.data_dir}   # .env has the store's keys",
        highlight=False,
        soft_wrap=True,
    )
    out.print("$ depthvault status -c run/depthvault.yaml", highlight=False)
    out.print("$ depthvault verify store -c run/depthvault.yaml", highlight=False)
