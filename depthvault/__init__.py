"""Depthvault: records crypto order books and keeps an archive that can be proved complete."""

from __future__ import annotations

__version__ = "0.1.0"
