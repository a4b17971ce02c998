"""How Airflow tells people: failures join the other alerts, grouped and rate-limited; messages may also go out at once.

Receivers and addresses come from the configuration (`alerts.telegram_url`, `alerts.mail_to`), secrets from the
environment. Nothing configured means nothing sent, and no failure.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseNotifier

from depthvault.alerts import Alert, Message, Sender, Spool, configured_senders
from depthvault.config import Secrets
from plugins.configuration import config


class AlertNotifier(BaseNotifier):
    """Raises an alert for a failed task. The alerting process groups it with others and sends it.

    For `on_failure_callback`: it appends a line to a file, so it cannot fail for a network, and a bad night is ten
    messages.
    """

    def notify(self, context: Any) -> None:
        instance = context["ti"]
        index = f"[{instance.map_index}]" if (instance.map_index or 0) > -1 and instance.map_index is not None else ""
        what = f"{instance.dag_id}.{instance.task_id}{index}"
        reason = " ".join(str(context.get("exception") or "no reason given").split())[:300]
        Spool(config().layout.run / "alerts", "airflow").raise_alert(
            Alert(time.time_ns(), "task_failed", "airflow", f"{what} failed: {reason}", what)
        )


class _MessageNotifier(BaseNotifier):
    """Sends one message at once over the configured way called `way`."""

    template_fields: Sequence[str] = ("title", "text")
    way: str

    def __init__(self, title: str, text: str, **options: Any) -> None:
        super().__init__(**options)
        self.title = title
        self.text = text

    def notify(self, context: Any) -> None:
        for sender in configured_senders(config().alerts, Secrets()):
            if sender.name == self.way:
                sender.send(Message(self.title, self.text))
                self.log.info("sent by %s: %s", sender.name, self.title)


class TelegramNotifier(_MessageNotifier):
    """Sends a Telegram message over HTTP, to the Bot API or to whatever server `alerts.telegram_url` names."""

    way = "telegram"


class MailNotifier(_MessageNotifier):
    """Sends a mail over SMTP (`SMTP_*` from the environment, receivers `alerts.mail_to`)."""

    way = "mail"


def senders() -> list[Sender]:
    """The ways that are configured, for tasks that send something richer than a line."""
    return configured_senders(config().alerts, Secrets())
