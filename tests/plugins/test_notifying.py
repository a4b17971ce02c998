"""Failures join the alerts; messages and reports go out by Telegram and mail, and secrets appear nowhere."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from depthvault.alerts import SpoolReader
from depthvault.alerts.senders import SendError
from tests.plugins.conftest import Configure
from tests.plugins.receivers import mail, telegram

TOKEN = "123456:very-secret"
DAY = "2026-11-20"


@pytest.fixture
def telegram_secrets(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    del configure  # it clears secrets first
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", TOKEN)
    monkeypatch.setenv("TELEGRAM_CHAT_ID", "42")


def mail_secrets(monkeypatch: pytest.MonkeyPatch, port: int, password: str) -> None:
    monkeypatch.setenv("SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("SMTP_PORT", str(port))
    monkeypatch.setenv("SMTP_USER", "vault")
    monkeypatch.setenv("SMTP_PASSWORD", password)
    monkeypatch.setenv("SMTP_FROM", "vault@example.org")


def written_report(data: Path) -> Path:
    folder = data / "reports" / DAY
    folder.mkdir(parents=True)
    (folder / "report.txt").write_text(f"{DAY}: complete\n24 of 24 periods archived\n", encoding="utf-8")
    (folder / "report.html").write_text("<h1>Friday ≥ 99 %</h1>", encoding="utf-8")
    return folder


def test_a_failed_task_becomes_an_alert_that_names_it(configure: Configure) -> None:
    from plugins.notifiers import AlertNotifier

    data = configure()
    instance = SimpleNamespace(dag_id="archive_hour", task_id="archive_unit.upload", map_index=1)
    AlertNotifier()({"ti": instance, "exception": RuntimeError("the store\nrefused")})
    (alert,) = SpoolReader(data / "run" / "alerts").read()
    assert (alert.kind, alert.source) == ("task_failed", "airflow")
    assert alert.text == "archive_hour.archive_unit.upload[1] failed: the store refused"


def test_every_dag_raises_an_alert_when_a_task_fails_for_good(configure: Configure) -> None:
    from plugins.notifiers import AlertNotifier
    from plugins.schedules import defaults

    configure()
    assert isinstance(defaults()["on_failure_callback"], AlertNotifier)


@pytest.mark.usefixtures("telegram_secrets")
def test_a_telegram_notifier_sends_to_the_configured_server(configure: Configure) -> None:
    from plugins.notifiers import TelegramNotifier

    with telegram() as server:
        configure(alerts={"telegram_url": server.url})
        TelegramNotifier(title="Hello", text="all is well")({})
        assert server.paths == [f"/bot{TOKEN}/sendMessage"]
        assert server.messages[0]["chat_id"] == "42"
        assert server.messages[0]["text"] == "Hello\nall is well"


def test_a_mail_notifier_logs_in_and_sends(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    from plugins.notifiers import MailNotifier

    with mail() as server:
        mail_secrets(monkeypatch, server.port, "right")
        configure(alerts={"mail_to": ["ops@example.org"]})
        MailNotifier(title="Hello", text="all is well")({})
        (message,) = server.mails
        assert (message["Subject"], message["To"]) == ("[Depthvault] Hello", "ops@example.org")


def test_a_refused_login_is_said_without_the_password(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    from plugins.notifiers import MailNotifier

    with mail() as server:
        mail_secrets(monkeypatch, server.port, "wrong-and-secret")
        configure(alerts={"mail_to": ["ops@example.org"]})
        with pytest.raises(SendError, match="refused the login") as failure:
            MailNotifier(title="Hello", text="all is well")({})
        assert "wrong-and-secret" not in str(failure.value)
        assert server.mails == []


def test_nothing_configured_sends_nothing_and_fails_nothing(configure: Configure) -> None:
    from plugins import reporting
    from plugins.notifiers import TelegramNotifier

    written_report(configure())
    TelegramNotifier(title="Hello", text="all is well")({})
    assert reporting.send(DAY) == f"report of {DAY}: no way to send it is configured"


@pytest.mark.usefixtures("telegram_secrets")
def test_a_report_goes_as_html_by_mail_and_as_text_by_telegram(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plugins import reporting

    with telegram() as bot, mail() as server:
        mail_secrets(monkeypatch, server.port, "right")
        written_report(configure(alerts={"telegram_url": bot.url, "mail_to": ["ops@example.org"]}))
        assert reporting.send(DAY) == f"report of {DAY}: sent by telegram, mail"
        assert bot.messages[0]["text"] == f"{DAY}: complete\n24 of 24 periods archived"
        (message,) = server.mails
        html = message.get_body(preferencelist=("html",))
        plain = message.get_body(preferencelist=("plain",))
        assert html.get_content().strip() == "<h1>Friday ≥ 99 %</h1>"
        assert plain.get_content().strip() == "24 of 24 periods archived"
        reporting.send(DAY)  # a second run sends nothing twice
        assert (len(bot.messages), len(server.mails)) == (1, 1)


@pytest.mark.usefixtures("telegram_secrets")
def test_a_way_that_fails_is_tried_again_alone(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from plugins import reporting

    with telegram() as bot, mail() as server:
        bot.refuse = 401
        mail_secrets(monkeypatch, server.port, "right")
        written_report(configure(alerts={"telegram_url": bot.url, "mail_to": ["ops@example.org"]}))
        with pytest.raises(SendError, match="HTTP 401") as failure:
            reporting.send(DAY)
        assert TOKEN not in str(failure.value) + capsys.readouterr().out
        assert len(server.mails) == 1
        bot.refuse = None
        assert reporting.send(DAY) == f"report of {DAY}: sent by telegram, mail (before)"
        assert len(server.mails) == 1
