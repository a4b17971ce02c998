"""A figure as a file."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import TYPE_CHECKING

from depthvault.durable import publish
from depthvault.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body{{margin:2rem auto;max-width:1200px;font-family:system-ui,sans-serif}}svg{{width:100%;height:auto}}</style>
</head><body>{image}</body></html>
"""
FORMATS = (".png", ".svg", ".html")


def write(figure: Figure, path: Path, title: str) -> Path:
    """Write `figure` as what the name of `path` says. Raises UsageError for another ending than FORMATS."""
    if path.suffix not in FORMATS:
        raise UsageError(f"{path}: pictures end in {', '.join(FORMATS)}")
    kind = "svg" if path.suffix == ".html" else path.suffix[1:]
    buffer = io.BytesIO()
    # Fixed metadata: the same data gives the same bytes.
    figure.savefig(
        buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {"Software": "depthvault"}
    )
    data = buffer.getvalue()
    if path.suffix == ".html":
        image = data.decode()
        image = image[image.index("<svg") :]
        data = _PAGE.format(title=html.escape(title), image=image).encode()
    with publish(path) as temporary:
        temporary.write_bytes(data)
    return path
