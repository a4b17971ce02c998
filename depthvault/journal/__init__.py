"""The journal: raw, append-only, checksummed. The only thing that must not fail."""

from depthvault.journal.follow import Follower, follow, follow_async
from depthvault.journal.locks import is_locked
from depthvault.journal.reader import Batch, Damage, read, read_rows, stop_reason
from depthvault.journal.rows import Kind, Row, closed_body, json_body, opened_body, parse_body, subscribed_body
from depthvault.journal.writer import JournalWriter

__all__ = [
    "Batch",
    "Damage",
    "Follower",
    "JournalWriter",
    "Kind",
    "Row",
    "closed_body",
    "follow",
    "follow_async",
    "is_locked",
    "json_body",
    "opened_body",
    "parse_body",
    "read",
    "read_rows",
    "stop_reason",
    "subscribed_body",
]
