"""Alerts arrive, few and whole, over real HTTP and SMTP servers; secrets do not leak."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope
from typer.testing import CliRunner

from depthvault.alerts import Alert, Grouper, Message, Spool, SpoolReader, configured_senders
from depthvault.alerts.senders import SendError
from depthvault.cli import app
from depthvault.config import AlertsConfig, Secrets
from depthvault.errors import ConfigError
from tests.serving import serving

SECOND = 10**9


class Telegram(ThreadingHTTPServer):
    """A server that speaks the one call of the Bot API that we use."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.refuse = False

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.received.append((self.path, body))
                status = 403 if server.refuse else 200
                answer = json.dumps({"ok": not server.refuse, "description": "Forbidden: bot was blocked"}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        server = self
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def telegram() -> Iterator[Telegram]:
    server = Telegram()
    with serving(server):
        yield server


class Mailbox:
    """Keeps what was delivered."""

    def __init__(self) -> None:
        self.mails: list[Envelope] = []

    async def handle_DATA(self, server: object, session: object, envelope: Envelope) -> str:  # noqa: N802
        self.mails.append(envelope)
        return "250 kept"


def _authenticate(server: object, session: object, envelope: object, mechanism: str, data: Any) -> AuthResult:
    right = (data.login, data.password) == (b"user", b"right password")
    return AuthResult(success=right, handled=False)


@pytest.fixture
def mail_server() -> Iterator[tuple[Mailbox, int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mailbox = Mailbox()
    controller = Controller(
        mailbox, hostname="127.0.0.1", port=port, authenticator=_authenticate, auth_require_tls=False
    )
    controller.start()
    yield mailbox, port
    controller.stop()


def secrets(**values: Any) -> Secrets:
    return Secrets(_env_file=None, **values)  # type: ignore[call-arg]


def test_telegram_gets_the_message_at_its_configured_address(telegram: Telegram) -> None:
    [sender] = configured_senders(
        AlertsConfig(telegram_url=telegram.url), secrets(telegram_bot_token="123:abc", telegram_chat_id="-100")
    )
    sender.send(Message("binance_futures a: gap ×2", "x" * 5000))
    [(path, body)] = telegram.received
    assert path == "/bot123:abc/sendMessage"
    assert body["chat_id"] == "-100"
    assert body["text"].startswith("binance_futures a: gap ×2\nxxx")
    assert len(body["text"]) <= 4096


def test_a_refusal_by_telegram_says_why_and_hides_the_token(telegram: Telegram) -> None:
    telegram.refuse = True
    [sender] = configured_senders(
        AlertsConfig(telegram_url=telegram.url), secrets(telegram_bot_token="123:abc", telegram_chat_id="1")
    )
    with pytest.raises(SendError, match="403 Forbidden: bot was blocked") as caught:
        sender.send(Message("t", "b"))
    assert "123:abc" not in str(caught.value)


def test_mail_arrives_with_its_html(mail_server: tuple[Mailbox, int]) -> None:
    mailbox, port = mail_server
    [sender] = configured_senders(
        AlertsConfig(mail_to=("team@example.com",)),
        secrets(smtp_host="127.0.0.1", smtp_port=port, smtp_user="user", smtp_password="right password"),
    )
    sender.send(Message("daily report", "plain"), html="<h1>rich</h1>")
    [mail] = mailbox.mails
    content = mail.content.decode() if isinstance(mail.content, bytes) else str(mail.content)
    assert "Subject: [Depthvault] daily report" in content
    assert "plain" in content
    assert "<h1>rich</h1>" in content


def test_a_refused_login_is_one_line_without_the_password(mail_server: tuple[Mailbox, int]) -> None:
    mailbox, port = mail_server
    [sender] = configured_senders(
        AlertsConfig(mail_to=("team@example.com",)),
        secrets(smtp_host="127.0.0.1", smtp_port=port, smtp_user="user", smtp_password="wrong one"),
    )
    with pytest.raises(SendError, match="refused the login") as caught:
        sender.send(Message("t", "b"))
    assert "wrong one" not in str(caught.value)
    assert mailbox.mails == []


def test_the_command_sends_by_every_way_and_says_which_arrived(
    telegram: Telegram, mail_server: tuple[Mailbox, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailbox, port = mail_server
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "TELEGRAM_BOT_TOKEN": "123:abc", "TELEGRAM_CHAT_ID": "-100", "SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(port),
        "DEPTHVAULT_ALERTS__TELEGRAM_URL": telegram.url, "DEPTHVAULT_ALERTS__MAIL_TO": '["team@example.com"]',
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["alerts", "test"])
    assert (result.exit_code, result.stdout) == (0, "telegram: sent\nmail: sent\n")
    assert len(telegram.received) == len(mailbox.mails) == 1
    telegram.refuse = True
    result = CliRunner().invoke(app, ["alerts", "test"])
    assert result.exit_code == 1
    assert "telegram: HTTP 403 Forbidden: bot was blocked" in result.stdout
    assert "mail: sent" in result.stdout
    assert "123:abc" not in result.stdout


def test_the_command_says_what_to_set_when_nothing_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TELEGRAM_BOT_TOKEN", "TELEGRAM_CHAT_ID", "SMTP_HOST"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(app, ["alerts", "test"])
    assert isinstance(result.exception, ConfigError)
    assert "TELEGRAM_BOT_TOKEN" in str(result.exception)


def test_a_bad_night_is_ten_messages_and_tells_of_every_alert() -> None:
    grouper, messages, raised = Grouper(group_seconds=60, max_per_hour=10), [], 0
    for second in range(0, 3600, 2):
        now = second * SECOND
        for symbol in ("BTCUSDT", "ETHUSDT", "XRPUSDT"):
            grouper.add(Alert(now, "gap", "binance_futures a", f"gap in {symbol}", symbol), now)
            raised += 1
        messages += grouper.due(now)
    assert len(messages) == 10
    later = grouper.due(2 * 3600 * SECOND)
    assert len(later) == 1
    told = sum(int(message.title.rpartition("×")[2]) for message in [*messages, *later])
    assert told == raised
    assert grouper.waiting == 0


def test_what_is_urgent_is_not_held_back_to_be_grouped() -> None:
    grouper = Grouper(group_seconds=60, max_per_hour=10)
    grouper.add(Alert(0, "banned", "binance_spot a", "banned until 12:00"), 0)
    grouper.add(Alert(0, "gap", "binance_spot a", "gap"), 0)
    assert [message.title for message in grouper.due(0)] == ["binance_spot a: banned"]


def test_each_raised_alert_is_read_once_also_after_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "binance_spot-a")
    spool.raise_alert(Alert(2, "gap", "binance_spot a", "second"))
    Spool(tmp_path, "sealer").raise_alert(Alert(1, "start", "sealer", "first"))
    reader = SpoolReader(tmp_path)
    assert [alert.text for alert in reader.read()] == ["first", "second"]
    assert [alert.text for alert in SpoolReader(tmp_path).read()] == ["first", "second"], "not yet done"
    reader.done()
    with (tmp_path / "sealer.jsonl").open("a") as file:
        file.write('{"time_ns": 3, "kind": "gap", "torn')
    spool.raise_alert(Alert(4, "resync", "binance_spot a", "third"))
    assert [alert.text for alert in SpoolReader(tmp_path).read()] == ["third"]
