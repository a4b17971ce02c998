"""Pictures of the archive: coverage, depth, spread and liquidity, as PNG, SVG or one self-contained HTML page."""

from __future__ import annotations

from depthvault.plot.pictures import coverage, depth, heatmap, spread
from depthvault.plot.write import write

__all__ = ["coverage", "depth", "heatmap", "spread", "write"]
