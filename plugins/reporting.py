"""The daily report as a task: written, then sent by whatever ways are configured."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from plugins.configuration import config


def report_date(day: str | None, now: datetime) -> date:
    """The day that was asked for (`YYYY-MM-DD`), else yesterday."""
    return date.fromisoformat(day) if day else (now - timedelta(days=1)).date()


def write(day: str | None = None) -> str:
    """Write the report of `day` (default: yesterday) under `reports/`; returns the day. A second run replaces it."""
    from depthvault.config import Secrets
    from depthvault.report import write_report

    now = datetime.now(UTC)
    report = write_report(config(), report_date(day, now), now, store=Secrets().has_store)
    _say(report.title)
    _say(report.text)
    _say(f"written to {report.folder}")
    return report.day.date.isoformat()


def send(day: str) -> str:
    """Send the written report of `day`: HTML by mail, text by Telegram. Ways that fail do not keep others from it.

    Raises SendError naming each way that failed; a retry sends only by those.
    """
    from depthvault.alerts import Message, configured_senders
    from depthvault.alerts.senders import SendError
    from depthvault.config import Secrets

    settings = config()
    folder = settings.layout.reports / day
    title, _, text = (folder / "report.txt").read_text(encoding="utf-8").partition("\n")
    html = (folder / "report.html").read_text(encoding="utf-8")
    ways = configured_senders(settings.alerts, Secrets())
    sent, failed = [], []
    for way in ways:
        mark = folder / f".sent-{way.name}"
        if mark.exists() and mark.read_text(encoding="utf-8") == title:
            sent.append(f"{way.name} (before)")
            continue
        try:
            way.send(Message(title, text.rstrip()), html)
        except SendError as error:
            failed.append(str(error))
            continue
        mark.write_text(title, encoding="utf-8")
        sent.append(way.name)
    line = f"report of {day}: " + (f"sent by {', '.join(sent)}" if sent else "no way to send it is configured")
    _say(line)
    if failed:
        raise SendError("; ".join(failed))
    return line


def _say(line: str) -> None:
    print(line)
