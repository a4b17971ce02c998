"""Telegram and mail. Secrets come from the environment; they are in no message, log or error."""

from __future__ import annotations

import json
import smtplib
import ssl
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from email.message import EmailMessage

from depthvault.alerts.grouping import Message
from depthvault.config import AlertsConfig, Secrets
from depthvault.errors import DepthvaultError

TIMEOUT = 15.0
_TELEGRAM_LIMIT = 4096  # characters in one message (Telegram Bot API)


class SendError(DepthvaultError):
    """A message could not be delivered. Names the way and the reason, never a token or password."""


class Sender(ABC):
    """A way to reach people."""

    name: str

    @abstractmethod
    def send(self, message: Message, html: str | None = None) -> None:
        """Deliver `message`, or raise SendError. `html` is the rich form, where the way can carry it."""


class TelegramSender(Sender):
    """A Telegram bot. `base_url` can be another server that speaks the Bot API."""

    name = "telegram"

    def __init__(self, base_url: str, token: str, chat_id: str) -> None:
        self._url = f"{base_url.rstrip('/')}/bot{token}/sendMessage"
        self._token = token
        self._chat_id = chat_id

    def send(self, message: Message, html: str | None = None) -> None:
        text = f"{message.title}\n{message.body}"
        if len(text) > _TELEGRAM_LIMIT:
            text = text[: _TELEGRAM_LIMIT - 2] + " …"
        body = json.dumps({"chat_id": self._chat_id, "text": text, "disable_web_page_preview": True}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})  # noqa: S310 - configured
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
                result = json.load(answer)
        except urllib.error.HTTPError as error:
            raise SendError(f"telegram: HTTP {error.code} {self._reason(error)}") from None
        except (OSError, ValueError) as error:
            raise SendError(f"telegram: {str(error).replace(self._token, '…')}") from None
        if not result.get("ok"):
            raise SendError(f"telegram: {result.get('description', 'refused')}")

    @staticmethod
    def _reason(error: urllib.error.HTTPError) -> str:
        try:
            return str(json.load(error).get("description", ""))
        except (ValueError, OSError):
            return ""


class MailSender(Sender):
    """SMTP with STARTTLS where the server offers it; a password is never sent in the clear beyond loopback."""

    name = "mail"

    def __init__(self, secrets: Secrets, to: tuple[str, ...]) -> None:
        self._secrets = secrets
        self._to = to

    def send(self, message: Message, html: str | None = None) -> None:
        secrets = self._secrets
        host = secrets.smtp_host or ""
        mail = EmailMessage()
        mail["Subject"] = f"[Depthvault] {message.title}"
        mail["From"] = secrets.smtp_from or secrets.smtp_user or f"depthvault@{host}"
        mail["To"] = ", ".join(self._to)
        mail.set_content(message.body)
        if html is not None:
            mail.add_alternative(html, subtype="html")
        try:
            with smtplib.SMTP(host, secrets.smtp_port, timeout=TIMEOUT) as server:
                server.ehlo()
                encrypted = False
                if secrets.smtp_starttls and server.has_extn("starttls"):
                    server.starttls(context=ssl.create_default_context())
                    server.ehlo()
                    encrypted = True
                if secrets.smtp_user and secrets.smtp_password is not None:
                    if not encrypted and host not in {"127.0.0.1", "localhost", "::1"}:
                        raise SendError(f"mail: {host} offers no STARTTLS; the password is not sent in the clear")
                    server.login(secrets.smtp_user, secrets.smtp_password.get_secret_value())
                server.send_message(mail)
        except smtplib.SMTPAuthenticationError as error:
            raise SendError(f"mail: {host} refused the login ({error.smtp_code})") from None
        except (smtplib.SMTPException, OSError) as error:
            raise SendError(f"mail: {host}:{secrets.smtp_port}: {error}") from None


def configured_senders(alerts: AlertsConfig, secrets: Secrets) -> list[Sender]:
    """The ways that are configured; none is fine."""
    senders: list[Sender] = []
    token = secrets.telegram_bot_token.get_secret_value() if secrets.telegram_bot_token else ""
    if token and secrets.telegram_chat_id:
        senders.append(TelegramSender(alerts.telegram_url, token, secrets.telegram_chat_id))
    if secrets.smtp_host and alerts.mail_to:
        senders.append(MailSender(secrets, alerts.mail_to))
    return senders
