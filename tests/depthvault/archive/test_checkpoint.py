"""The log's checkpoint: it says what the manifests say, and is not believed when anything is odd about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from depthvault.archive import checkpoint, log
from depthvault.archive.manifest import (
    ArchiveFile,
    ArchiveState,
    Counts,
    Entry,
    InputFile,
    SymbolSpan,
    Tail,
    digest,
    encode,
)
from depthvault.archive.store import Store
from depthvault.archive.verify import verify
from depthvault.errors import ChainError
from depthvault.layout import Layout
from depthvault.query.sources import Log

HOURS = 40
CHANNELS = ("depth_diff", "trade")


def _file(kind: str, channel: str, period: str, generation: int, table: str = "") -> ArchiveFile:
    path = f"{kind}/channel={channel}/{table}{period}.g{generation}.parquet"
    spans = {"BTCUSDT": SymbolSpan(10, 1, 2, (0, 1), 5, 9), "币安人生USDT": SymbolSpan(2, 1, 2, (1, 2))}
    return ArchiveFile(path, digest(path.encode()), 100, 12, "", table or channel, 1, 2, 5, 9, spans)


def _entries() -> list[Entry]:
    """Hours of two channels; some made anew, some with a quality file that outlives its entry; a day at the end."""
    made: list[Entry] = []

    def add(kind: str, channel: str, period: str, generation: int, add: list[ArchiveFile], remove: list[str]) -> None:
        made.append(
            Entry(
                len(made) + 1, None, kind, "binance_futures", channel, period, 60, generation, "", "", "", 1, {},
                [InputFile(f"live/{channel}/{period}.g{generation}", "ab" * 32, 12)] if kind == "hour" else [],
                add, remove, Counts(12, 12),
                tails={"BTCUSDT": {"": Tail(2, 9), "a": Tail(2, 9)}} if channel == "depth_diff" else {},
            )
        )  # fmt: skip

    periods = [f"202611{1 + hour // 24:02d}T{hour % 24:02d}00" for hour in range(HOURS)]
    for period in periods:
        for channel in CHANNELS:
            files = [_file("hour", channel, period, 1), _file("quality", channel, period, 1, "gaps")]
            add("hour", channel, period, 1, files, [])
    for period in periods[::7]:  # the quality file of the first generation stays
        old = _file("hour", "trade", period, 1).path
        add("hour", "trade", period, 2, [_file("hour", "trade", period, 2)], [old])
    current = {period: 2 if period in periods[::7] else 1 for period in periods[:24]}
    gone = [_file("hour", "trade", period, generation).path for period, generation in current.items()]
    add("day", "trade", "2026-11-01", 1, [_file("day", "trade", "2026-11-01", 1)], gone)
    return made


def _published(layout: Layout, entries: list[Entry]) -> None:
    layout.manifests.mkdir(parents=True, exist_ok=True)
    previous = None
    for entry in entries:
        data = encode(Entry(**{**{name: getattr(entry, name) for name in Entry.__struct_fields__},
                               "previous": previous}))  # fmt: skip
        layout.manifest(entry.number).write_bytes(data)
        previous = digest(data)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """An archive whose log is long enough for a checkpoint, and the checkpoint."""
    monkeypatch.setattr(checkpoint, "FEWEST", 4)
    layout = Layout(tmp_path)
    _published(layout, _entries()[:-3])
    log.load(layout)
    assert checkpoint.path_of(layout).exists()
    _published(layout, _entries())
    return layout


def _from_the_checkpoint(layout: Layout) -> ArchiveState:
    return checkpoint.read(checkpoint.path_of(layout), log.manifests(layout))


def test_the_state_is_that_of_every_manifest_in_every_field(layout: Layout) -> None:
    assert _from_the_checkpoint(layout).number == len(_entries()) - 3
    state = log.load(layout)
    assert state == log.load_all(layout)
    assert checkpoint.decode(checkpoint.encode(state)) == state
    assert state.before("binance_futures", "trade", "20261102T0000") is not None


def test_manifests_under_the_checkpoint_are_not_opened_again(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    before = log.load_all(layout)
    opened: list[int] = []
    manifests = log.manifests

    def watched(layout: Layout) -> Callable[[int], bytes | None]:
        fetch = manifests(layout)

        def noting(number: int) -> bytes | None:
            opened.append(number)
            return fetch(number)

        return noting

    monkeypatch.setattr(log, "manifests", watched)
    assert log.load(layout) == before
    last = before.number
    assert sorted(set(opened)) == [last - 3, last - 2, last - 1, last, last + 1]


def test_any_flipped_bit_of_it_makes_it_worthless_never_wrong(layout: Layout) -> None:
    path = checkpoint.path_of(layout)
    data = path.read_bytes()
    whole = log.load_all(layout)
    for place in (*range(0, len(data), 97), len(data) - 1):
        broken = bytearray(data)
        broken[place] ^= 1 << place % 8
        assert checkpoint.decode(bytes(broken)) is None
        assert checkpoint.decode(data[:place]) is None
    path.write_bytes(data[:-1])
    assert log.load(layout) == whole
    assert _from_the_checkpoint(layout).number == whole.number  # and it was made anew


def test_one_of_other_manifests_is_not_believed(layout: Layout, tmp_path: Path) -> None:
    other = Layout(tmp_path / "other")
    _published(other, [*_entries()[:10]])
    kept = checkpoint.path_of(other)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(checkpoint.path_of(layout).read_bytes())
    assert log.load(other) == log.load_all(other)
    last = _from_the_checkpoint(layout).number
    layout.manifest(last).write_bytes(layout.manifest(last).read_bytes().replace(b'"rows":12', b'"rows":13', 1))
    assert _from_the_checkpoint(layout).number == 0
    with pytest.raises(ChainError, match=f"{last + 1:08d}"):
        log.load(layout)


def test_one_of_another_version_is_not_believed(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_SHAPE", b"\0" * 32)
    assert _from_the_checkpoint(layout).number == 0


def test_a_manifest_that_went_missing_under_it_is_missed(layout: Layout) -> None:
    layout.manifest(3).unlink()
    with pytest.raises(ChainError, match=r"00000003\.json: is missing"):
        log.load(layout)


def test_verify_reads_every_manifest_whatever_the_checkpoint_says(layout: Layout) -> None:
    path = layout.manifest(5)
    path.write_bytes(path.read_bytes().replace(b'"publisher":""', b'"publisher":"x"'))
    log.load(layout)  # does not look there
    findings = [finding for finding in verify(layout).findings if finding.kind == "chain"]
    assert len(findings) == 1
    assert "00000006.json" in findings[0].detail


def test_who_may_only_read_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FEWEST", 4)
    layout = Layout(tmp_path)
    _published(layout, _entries())
    layout.run.write_bytes(b"")  # a file where the folder would be: making it fails for root as well
    assert log.load(layout) == log.load_all(layout)


def _counting(store: Store, asked: list[int]) -> Callable[[int], bytes | None]:
    def fetch(number: int) -> bytes | None:
        asked.append(number)
        return store.get(log.manifest_key(number))

    return fetch


def test_the_first_reader_of_a_bucket_starts_from_the_store_s_checkpoint(
    layout: Layout, store: Store, tmp_path: Path
) -> None:
    whole = log.catch_up(layout, store)
    log.write_derived(layout, store, whole, ())
    assert not [found for found in verify(layout, store).findings if found.kind == "extra"]

    asked: list[int] = []
    own = tmp_path / "cache" / "checkpoint"
    reader = Log(_counting(store, asked), own, lambda: store.get(checkpoint.KEY))
    assert reader.advance() == whole.number
    assert reader.state == whole
    assert sorted(set(asked)) == list(range(whole.number - 3, whole.number + 2))
    assert own.exists(), "the next time it need not be fetched"

    broken = bytearray(store.get(checkpoint.KEY) or b"")
    broken[-1] ^= 1
    store.put(checkpoint.KEY, bytes(broken), exclusive=False)
    assert Log(_counting(store, asked), None, lambda: store.get(checkpoint.KEY)).advance() == whole.number


def test_the_store_s_checkpoint_is_put_when_it_is_new_and_not_again(layout: Layout, store: Store) -> None:
    whole = log.catch_up(layout, store)
    log.write_derived(layout, store, whole, ())
    first = store.get(checkpoint.KEY)
    assert first == checkpoint.path_of(layout).read_bytes()
    store.put(checkpoint.KEY, b"somebody else's", exclusive=False)
    log.write_derived(layout, store, whole, ())
    assert store.get(checkpoint.KEY) == b"somebody else's"
    checkpoint.keep(checkpoint.path_of(layout), checkpoint.encode(whole))
    log.write_derived(layout, store, whole, ())
    assert store.get(checkpoint.KEY) == checkpoint.path_of(layout).read_bytes() != first
