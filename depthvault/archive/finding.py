"""What a verification says of something that is not as it should be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

PENDING = timedelta(hours=1)
"""How long a file may wait for its manifest before it counts as extra."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something that is not as it should be. where: `local` or `store`. kind: `chain`, `missing`, `corrupt`, `extra`,
    `sums`, `unreachable`, `continuity` or `audit`. path: relative to `archive/`, as in the manifests; of journals and
    what was sealed from them, to `data_dir`."""

    where: str
    kind: str
    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.where}: {self.path}: {self.kind}: {self.detail}"
