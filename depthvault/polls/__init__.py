"""What is asked over REST on a cadence (snapshots, funding, open interest, listings), journaled like every frame."""

from __future__ import annotations

from depthvault.polls.poll import poll, poll_snapshots
from depthvault.polls.refill import refill
from depthvault.polls.rotation import Rotation, published_cadence
from depthvault.polls.round import Polled

__all__ = ["Polled", "Rotation", "poll", "poll_snapshots", "published_cadence", "refill"]
