"""Which Iceberg catalog holds the tables, and how their files are reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from depthvault.config import Config, Secrets
from depthvault.durable import make_directories
from depthvault.errors import ArchiveError, ConfigError
from depthvault.layout import Layout

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

NAME = "depthvault"


def in_store(config: Config, secrets: Secrets) -> bool:
    """Whether tables name the objects of the store; else the files of this disk. ConfigError when there is no store."""
    wanted = config.iceberg.files == "store" or (config.iceberg.files == "auto" and secrets.has_store)
    if wanted and not secrets.has_store:
        raise ConfigError("iceberg.files: store, but no object store is configured: set R2_BUCKET_NAME and the keys")
    return wanted


def properties(layout: Layout, config: Config, secrets: Secrets) -> dict[str, str]:
    """What pyiceberg needs to open the catalog. Holds secrets: not to be logged."""
    settings = config.iceberg
    local = layout.root.absolute() / "iceberg"
    given = {
        "type": "sql" if settings.uri is None else "rest",
        "uri": settings.uri or f"sqlite:///{local / 'catalog.sqlite'}",
        # An R2 or S3 without s3fs: Arrow's own file systems read it.
        "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO",
    }
    warehouse = settings.warehouse or (f"file://{local / 'warehouse'}" if settings.uri is None else None)
    if warehouse is not None:
        given["warehouse"] = warehouse
    if secrets.iceberg_token is not None:
        given["token"] = secrets.iceberg_token.get_secret_value()
    if secrets.r2_access_key_id is not None and secrets.r2_secret_access_key is not None:
        given["s3.access-key-id"] = secrets.r2_access_key_id.get_secret_value()
        given["s3.secret-access-key"] = secrets.r2_secret_access_key.get_secret_value()
        given["s3.region"] = config.store.region
        if settings.uri is not None:
            # The objects lie outside the table's own folder, which is all that keys lent by the catalog would open.
            given["header.X-Iceberg-Access-Delegation"] = ""
        if settings.properties.get("rest.sigv4-enabled", "").lower() == "true":
            given["client.access-key-id"] = given["s3.access-key-id"]
            given["client.secret-access-key"] = given["s3.secret-access-key"]
        if secrets.r2_endpoint_url is not None:
            given["s3.endpoint"] = secrets.r2_endpoint_url
    return given | settings.properties


def open_catalog(layout: Layout, config: Config, secrets: Secrets) -> Catalog:
    """The configured catalog. ArchiveError when it cannot be reached, or pyiceberg is not installed."""
    try:
        from pyiceberg.catalog import load_catalog
        from pyiceberg.exceptions import RESTError
    except ModuleNotFoundError as error:
        raise ArchiveError(
            f"Iceberg tables need the extra `research`: pip install 'depthvault[research]' ({error})"
        ) from error
    if config.iceberg.uri is None:
        make_directories(layout.root / "iceberg")
    try:
        return load_catalog(NAME, **properties(layout, config, secrets))
    except (RESTError, OSError, ValueError) as error:
        where = config.iceberg.uri or "the SQL catalog"
        raise ArchiveError(f"{where}: cannot be opened: {' '.join(str(error).split())[:200]}") from error
