"""Parquet that earlier recorders wrote, taken into the archive: marked as imported, and as proved by nothing.

Rows get `source` and `instance` `import`; a manifest of kind `import` with the condition `imported` names the source
files with their SHA-256; `gaps` has an `unprovable` row for each symbol and day. Ids are never invented.
"""

from depthvault.imports.run import Imported, import_files
from depthvault.imports.source import LAYOUTS, Options

__all__ = ["LAYOUTS", "Imported", "Options", "import_files"]
