"""The daily report: what was recorded, what is missing, how long the disk will last; HTML for mail, text for chat."""

from __future__ import annotations

from depthvault.report.day import Day, day_of
from depthvault.report.html import html_report
from depthvault.report.text import text_report
from depthvault.report.write import Report, write_report

__all__ = ["Day", "Report", "day_of", "html_report", "text_report", "write_report"]
