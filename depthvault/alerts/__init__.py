"""Alerts: what happened, grouped so that a bad night is ten messages, sent by Telegram and mail."""

from __future__ import annotations

from depthvault.alerts.grouping import Grouper, Message
from depthvault.alerts.senders import Sender, configured_senders
from depthvault.alerts.spool import Alert, Spool, SpoolReader

__all__ = ["Alert", "Grouper", "Message", "Sender", "Spool", "SpoolReader", "configured_senders"]
