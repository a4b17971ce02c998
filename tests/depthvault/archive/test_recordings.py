"""Whatever byte of a data directory is changed, somebody notices: verification, and who reads it next."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from depthvault.archive.compact import compact, ready_units
from depthvault.archive.finding import PENDING, Finding
from depthvault.archive.publish import publish_with
from depthvault.archive.raw import raw_key, upload_raw
from depthvault.archive.rederive import rederive
from depthvault.archive.staging import Unit
from depthvault.archive.store import Store
from depthvault.archive.verify import verify
from depthvault.config import BinanceSpotConfig, Config
from depthvault.errors import CorruptError
from depthvault.exchanges import exchange
from depthvault.seal import read_receipt
from tests.depthvault.seal.conftest import HOUR, Tape, put_trades

from .seaweed import Server

VENUE = "binance_spot"
AFTER = HOUR.next()


@pytest.fixture
def tape(tmp_path: Path) -> Tape:
    """Two periods of trades, sealed: journals, live files, late files, receipts."""
    tape = Tape(tmp_path, exchange(VENUE, BinanceSpotConfig()))
    with tape.begin("12:00:00") as writer:
        put_trades(writer, *((number, f"12:10:{number:02}", f"12:10:{number:02}") for number in range(1, 9)))
        writer.flush()
        put_trades(writer, (9, "12:50:00", "13:10:00"), (10, "13:10:01", "13:10:01"))
        tape.clock.step(4300)
    return tape


def config(tape: Tape) -> Config:
    return Config.model_validate({"data_dir": tape.layout.root, "raw": {"upload": True}})


def archive(tape: Tape) -> None:
    while units := ready_units(tape.layout, config(tape)):
        compact(tape.layout, config(tape), VENUE, units[0].period)
        publish_with(tape.layout, None, units[0])


def later() -> datetime:
    return datetime.now(UTC) + 2 * PENDING


def local(tape: Tape) -> list[Finding]:
    return verify(tape.layout, deep=True, now=later).findings


def test_any_changed_byte_of_anything_that_was_recorded_or_archived_is_named(tape: Tape) -> None:
    tape.seal(HOUR)
    archive(tape)
    tape.seal(AFTER)  # brings a late row: the first generation of the hour before is replaced
    archive(tape)
    assert local(tape) == []
    root, randomness = tape.layout.root, random.Random(3)
    folders = [root / name for name in ("journal", "live", "archive")]
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    assert {"receipts", "late", "replaced"} == {
        kind
        for path in paths
        for kind, mark in (
            ("receipts", "_receipts"),
            ("late", ".late-"),
            ("replaced", "channel=trade/date=2026-03-01/12.g1"),
        )
        if mark in str(path)
    }
    for path in paths:
        whole = path.read_bytes()
        for position in randomness.sample(range(len(whole)), 4):
            path.write_bytes(
                whole[:position] + bytes([whole[position] ^ 1 << randomness.randrange(8)]) + whole[position + 1 :]
            )
            assert path.name in str(local(tape)) or "_manifests" in str(local(tape)), (path, position)
        path.write_bytes(whole)
    assert local(tape) == []


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_journal_that_lost_its_end_after_it_was_sealed_is_named(tape: Tape, keep: float) -> None:
    tape.seal(HOUR)
    tape.seal(AFTER)
    (journal,) = tape.layout.journal_files(VENUE, "a")
    journal.write_bytes(journal.read_bytes()[: int(journal.stat().st_size * keep)])
    assert {finding.path for finding in local(tape)} == {journal.relative_to(tape.layout.root).as_posix()}


def test_damage_that_a_receipt_declares_is_no_news(tape: Tape) -> None:
    (journal,) = tape.layout.journal_files(VENUE, "a")
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 1
    journal.write_bytes(data)
    assert {finding.path for finding in local(tape)} == {journal.relative_to(tape.layout.root).as_posix()}
    for period in (HOUR, AFTER):
        tape.seal(period)
    archive(tape)
    assert local(tape) == []


def test_a_changed_live_file_stops_compaction_and_is_made_anew(tape: Tape) -> None:
    tape.seal(HOUR)
    path = tape.layout.live_file(VENUE, "trade", HOUR, "a")
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes([whole[200] ^ 4]) + whole[201:])
    with pytest.raises(CorruptError, match=f"{path.name}.*rederive"):
        archive(tape)
    rederive(tape.layout, config(tape), VENUE, HOUR)
    publish_with(tape.layout, None, Unit(VENUE, HOUR))
    assert path.read_bytes() == whole
    assert local(tape) == []


def test_a_live_file_that_is_gone_before_it_was_archived_is_missed(tape: Tape) -> None:
    tape.seal(HOUR)
    path = tape.layout.live_file(VENUE, "trade", HOUR, "a")
    path.unlink()
    assert [(finding.kind, finding.path) for finding in local(tape)] == [
        ("missing", path.relative_to(tape.layout.root).as_posix())
    ]


def test_any_changed_byte_of_a_receipt_stops_whoever_reads_it(tape: Tape) -> None:
    tape.seal(HOUR)
    path = tape.layout.receipt(VENUE, HOUR, "a")
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in (0, 5):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :])
            with pytest.raises(CorruptError, match=path.name):
                read_receipt(path)
    with pytest.raises(CorruptError, match=path.name):
        archive(tape)
    path.unlink()
    tape.seal(HOUR)
    assert path.read_bytes() == whole


def test_receipts_of_earlier_software_without_a_checksum_are_read(tape: Tape) -> None:
    tape.seal(HOUR)
    path = tape.layout.receipt(VENUE, HOUR, "a")
    receipt, text = read_receipt(path), path.read_text()
    assert text.count('"sha256"') > 1
    path.write_text(text[: text.rindex(",")] + "\n}\n")
    assert read_receipt(path) == receipt


def raw(tape: Tape, store: Store, *, deep: bool = False) -> list[tuple[str, str]]:
    found = verify(tape.layout, store, local=False, deep=deep, now=later).findings
    return [(finding.kind, finding.path) for finding in found]


def test_journals_in_the_store_are_read_back_and_compared(
    tape: Tape, store: Store, server: Server, bucket: str
) -> None:
    upload_raw(tape.layout, config(tape), store, now=HOUR.start)
    (journal,) = tape.layout.journal_files(VENUE, "a")
    key, whole = raw_key(tape.layout, journal), journal.read_bytes()
    assert raw(tape, store, deep=True) == []
    client = server.client()

    def put(name: str, data: bytes) -> None:
        client.put_object(Bucket=bucket, Key=store.object_key(name), Body=data)

    put(key, whole[:-1] + bytes([whole[-1] ^ 1]))
    assert raw(tape, store) == [("corrupt", key)]
    put(key, whole)
    proof = store.get(f"{key}.sha256") or b""
    put(f"{key}.sha256", b"0" + proof[1:] if proof[:1] != b"0" else b"1" + proof[1:])
    assert raw(tape, store) == [("corrupt", key)]
    store.delete(f"{key}.sha256")
    assert raw(tape, store) == [("missing", f"{key}.sha256")]
    put(f"{key}.sha256", proof)
    store.delete(key)
    assert raw(tape, store) == [("missing", key)]
    put(key, whole)
    assert raw(tape, store) == []
    journal.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert raw(tape, store) == [("corrupt", key)], "the copy here and the one there are not the same"


def test_a_journal_that_was_damaged_before_it_was_put_shows_in_its_records(tape: Tape, store: Store) -> None:
    (journal,) = tape.layout.journal_files(VENUE, "a")
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 1
    journal.write_bytes(data)
    upload_raw(tape.layout, config(tape), store, now=HOUR.start)
    key = raw_key(tape.layout, journal)
    assert raw(tape, store) == []
    assert raw(tape, store, deep=True) == [("corrupt", key)]


def test_a_journal_on_its_way_into_the_store_is_left_alone(tape: Tape, store: Store) -> None:
    upload_raw(tape.layout, config(tape), store, now=HOUR.start)
    (journal,) = tape.layout.journal_files(VENUE, "a")
    store.delete(f"{raw_key(tape.layout, journal)}.sha256")
    assert verify(tape.layout, store, local=False, now=lambda: datetime.now(UTC) + timedelta(minutes=1)).ok
