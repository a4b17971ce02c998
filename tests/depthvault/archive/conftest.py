"""A real S3 server for the whole session, and a fresh bucket for each test."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from depthvault.archive.store import Store
from depthvault.config import StoreConfig

from .seaweed import Server, running, weed_program


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if weed_program() is None:
        pytest.skip("SeaweedFS is not installed (extra `servers`)")
    with running(tmp_path_factory.mktemp("seaweed")) as running_server:
        yield running_server


@pytest.fixture
def bucket(server: Server) -> str:
    name = f"t{secrets.token_hex(8)}"
    server.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def store(server: Server, bucket: str) -> Store:
    return make_store(server, bucket)


def make_store(server: Server, bucket: str, **options: object) -> Store:
    settings = {"prefix": "vault", "attempts": 2, **options}
    return Store(
        bucket,
        server.access_key,
        server.secret_key,
        endpoint=server.endpoint,
        config=StoreConfig(**settings),  # type: ignore[arg-type]
        sleep=lambda _: None,
    )
