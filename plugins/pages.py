"""Pages in Airflow's web UI: the archive's coverage and gaps. Read only; for those who may see the archive's DAG.

Airflow does not authenticate a plugin's routes, so every route here depends on `reader`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.responses import HTMLResponse

from plugins.configuration import config

if TYPE_CHECKING:
    from depthvault.archive.manifest import ArchiveState
    from depthvault.report.day import ChannelDay, Day

PREFIX = "/depthvault"

HEADERS = {
    # No script, no frame but Airflow's own, nothing from elsewhere.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
}


def reader(user: Annotated[object, Depends(get_user)]) -> object:
    """The signed-in user; 401 without one, 403 for one who may not see the DAG `archive_hour`."""
    manager = get_auth_manager()
    if not manager.is_authorized_dag(method="GET", details=DagDetails(id="archive_hour"), user=user):
        raise HTTPException(403, "You may not see the archive.")
    return user


app = FastAPI(title="Depthvault", dependencies=[Depends(reader)], docs_url=None, redoc_url=None, openapi_url=None)


class _Archive:
    """The archive's state, kept between requests and brought up to date by reading only new manifests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: ArchiveState | None = None

    @contextmanager
    def read(self) -> Iterator[ArchiveState]:
        """The state as it is now; nobody else changes it meanwhile."""
        from depthvault.archive import log
        from depthvault.errors import ChainError

        layout = config().layout
        with self._lock:
            state = self._state or log.load(layout)
            try:
                while (path := layout.manifest(state.number + 1)).exists():
                    state.append(path.read_bytes(), str(path))
            except ChainError:  # another archive lies there now, or it is broken: then `load` says where
                self._state = None
                state = log.load(layout)
            self._state = state
            yield state


_archive = _Archive()
Asked = Annotated[date | None, Query(alias="date", description="The day (UTC); default: today.")]


@app.get("/")
def overview(asked: Asked = None) -> HTMLResponse:
    """One day: coverage by hour, channels, gaps, storage."""
    from depthvault.report import html_report

    now = datetime.now(UTC)
    day = _day(asked or now.date(), now)
    links = [_link("← day before", ".", date=day.date - timedelta(days=1))]
    if day.date < now.date():
        links.append(_link("day after →", ".", date=day.date + timedelta(days=1)))
        links.append(_link("today", "."))

    def name(one: ChannelDay) -> str:
        return _link(
            f"{one.exchange} {one.channel}", "symbols", exchange=one.exchange, channel=one.channel, date=day.date
        )

    return _answer(html_report(day, f"<nav>{''.join(links)}</nav>", name))


@app.get("/symbols")
def symbols(exchange: str, channel: str, asked: Asked = None) -> HTMLResponse:
    """One channel of a venue: every symbol, hour by hour."""
    from depthvault.report.symbols import symbols_of, symbols_page

    day = asked or datetime.now(UTC).date()
    with _archive.read() as state:
        found = symbols_of(config().layout, state, exchange, channel, day)
    links = _link("↑ the day", ".", date=day)
    for text, other in (("← day before", day - timedelta(days=1)), ("day after →", day + timedelta(days=1))):
        links += _link(text, "symbols", exchange=exchange, channel=channel, date=other)
    return _answer(symbols_page(exchange, channel, day, found, f"<nav>{links}</nav>"))


def _day(day: date, now: datetime) -> Day:
    from depthvault.config import Secrets
    from depthvault.report.write import facts_of

    with _archive.read() as state:
        return facts_of(config(), state, day, now, store=Secrets().has_store)


def _link(text: str, to: str, **query: object) -> str:
    from html import escape

    target = f"{to}?{urlencode(query)}" if query else to
    return f'<a href="{escape(target)}">{escape(text)}</a>'


def _answer(page: str) -> HTMLResponse:
    return HTMLResponse(page, headers=HEADERS)
