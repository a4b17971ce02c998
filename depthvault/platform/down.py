"""Stopping everything: collectors first, so that they flush and seal; and nothing is left behind."""

from __future__ import annotations

import shutil
import time

import psutil

from depthvault.config import Config
from depthvault.errors import PlatformError
from depthvault.platform import control, s3_server
from depthvault.platform.control import ALIVE
from depthvault.platform.programs import stopping_stages
from depthvault.platform.progress import Steps
from depthvault.platform.site import DEMO_MARK, Site, checkout

SHUTDOWN_TIMEOUT = 90.0


def down(config: Config, *, quiet: bool = False) -> bool:
    """Stop the platform of `config`. Returns whether anything ran. Safe to run again, and after a crash."""
    return stop(Site.of(config), Steps(quiet=quiet))


def down_all() -> None:
    """Stop every platform that runs from this checkout: the demo, and those of other data directories."""
    steps = Steps()
    runs = control.running(checkout())
    for run in runs:
        steps.say(f"stopping what runs in {run.parent}")
        stop(Site.of(Config(data_dir=run.parent), demo=(run.parent / DEMO_MARK).exists()), steps)
    if not runs:
        steps.say("nothing runs")


def stop(site: Site, steps: Steps) -> bool:
    """`down` for a site. Raises PlatformError when a process cannot be ended."""
    supervisor = control.connect(site)
    if supervisor is None:
        ran = _stop_unanswering(site) + control.sweep(site)
        _remove_sockets(site)
        steps.say(
            f"ended what an earlier run left behind: {', '.join(ran)}" if ran else f"nothing runs for {site.data_dir}"
        )
        return bool(ran)
    pid = supervisor.pid()
    alive = [program.name for program in supervisor.programs() if program.state in ALIVE]
    for stage in stopping_stages(alive):
        with steps.step(f"stopping {', '.join(stage)}"):
            supervisor.stop(stage)
    with steps.step("stopping supervisor"):
        supervisor.shutdown()
        _wait_gone(pid)
    if orphans := control.sweep(site):
        steps.say(f"  ended what supervisor left behind: {', '.join(orphans)}")
    _remove_sockets(site)
    return True


def _remove_sockets(site: Site) -> None:
    """Remove what programs that have ended leave in the temporary folder."""
    s3_server.remove_sockets(site.ports.of(s3_server.PORT_NAMES))
    if site.socket.parent != site.supervision:
        shutil.rmtree(site.socket.parent, ignore_errors=True)


def _wait_gone(pid: int) -> None:
    deadline = time.monotonic() + SHUTDOWN_TIMEOUT
    while psutil.pid_exists(pid):
        if time.monotonic() > deadline:
            raise PlatformError(f"supervisord (pid {pid}) does not end")
        time.sleep(0.1)


def _stop_unanswering(site: Site) -> list[str]:
    """End a supervisord whose socket is gone; it stops its programs itself, in the order of their priorities."""
    pid = control.recorded_pid(site)
    if pid is None:
        return []
    psutil.Process(pid).terminate()
    _wait_gone(pid)
    return ["supervisord"]
