"""Every error that Depthvault raises on purpose.

    DepthvaultError
      · ConfigError            a key or value of the configuration cannot be used
      · UsageError             a command was asked for something that makes no sense (exit code 2)
      x JournalError
        · JournalLockedError   another live process writes this journal
      x VenueError
        · MalformedFrameError  a frame that the venue's rules do not allow; kept raw, counted, reported
        · RestError            a REST answer other than 200
          · RateLimitedError   429: wait `retry_after` seconds
          · BannedError        418: the address is banned until `until`
          · RestrictedError    451 or a refused upgrade: this host may not use the venue; never retried
        · ReconnectsExhaustedError  the collector gave up and exits non-zero, so that its supervisor acts
      x ArchiveError
        · ConflictError        the same key with another payload
        · ChainError           a manifest does not follow from the one before
        · CorruptError         bytes differ from what was recorded of them
        · StoreError           the object store refused or returned something else than was put
      · PlatformError          a server, port, disk or program that the platform needs is not usable

Each message is one line that names what and where.
"""

from __future__ import annotations


class DepthvaultError(Exception):
    """The root: catch this to catch all of them."""


class ConfigError(DepthvaultError):
    """A key or value of the configuration cannot be used."""


class UsageError(DepthvaultError):
    """A command was asked for something that makes no sense."""


class JournalError(DepthvaultError):
    """A journal cannot be written or read as such."""


class JournalLockedError(JournalError):
    """Another live process writes this journal."""


class VenueError(DepthvaultError):
    """An exchange answered with something other than data."""


class MalformedFrameError(VenueError):
    """A frame that the venue's rules do not allow."""


class RestError(VenueError):
    """A REST answer other than 200. `status` is the HTTP status, 0 when there was no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class RateLimitedError(RestError):
    """HTTP 429, or our own budget is spent: wait `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float, status: int = 429) -> None:
        super().__init__(message, status)
        self.retry_after = retry_after


class BannedError(RestError):
    """HTTP 418: the address is banned until `until` (seconds since the epoch)."""

    def __init__(self, message: str, until: float) -> None:
        super().__init__(message, 418)
        self.until = until


class RestrictedError(RestError):
    """HTTP 451 or a refused upgrade: this host may not use the venue. Never retried."""


class ReconnectsExhaustedError(VenueError):
    """All reconnect attempts are used up."""


class ArchiveError(DepthvaultError):
    """The archive, or something on the way into it, is not what it should be."""


class ConflictError(ArchiveError):
    """The same key stands with another payload."""


class ChainError(ArchiveError):
    """A manifest does not follow from the one before."""


class CorruptError(ArchiveError):
    """Bytes differ from what was recorded of them."""


class StoreError(ArchiveError):
    """The object store refused, or returned something else than was put."""


class PlatformError(DepthvaultError):
    """A server, port, disk or program that the platform needs is not usable."""
