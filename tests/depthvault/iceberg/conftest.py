"""The archive's own object store, for tables over its objects, with a REST catalog of its own."""

from collections.abc import Iterator

import pytest

from ..archive.conftest import bucket, store
from ..archive.seaweed import Server, running, weed_program

__all__ = ["bucket", "store"]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if weed_program() is None:
        pytest.skip("SeaweedFS is not installed (extra `servers`)")
    with running(tmp_path_factory.mktemp("seaweed"), iceberg="tables") as running_server:
        yield running_server
