"""A published file is whole or not there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from depthvault.durable import create_exclusive, publish, sha256_file, write_atomic


def test_a_failing_writer_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_atomic(path, b"old")
    with pytest.raises(RuntimeError), publish(path) as temporary:
        temporary.write_bytes(b"half of the ne")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == ["b.txt"]


def test_of_many_that_create_one_file_at_once_exactly_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "00000001.json"
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda i: create_exclusive(path, str(i).encode() * 1000), range(64)))
    assert won.count(True) == 1
    assert path.read_bytes() == str(won.index(True)).encode() * 1000
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_hash_is_that_of_sha256sum(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
