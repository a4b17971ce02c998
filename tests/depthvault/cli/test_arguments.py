"""Lists on the command line can be written with blanks, with commas, or one by one."""

from __future__ import annotations

import pytest

from depthvault.cli import spread


@pytest.mark.parametrize(
    "words",
    [
        ["record", "--symbols", "BTCUSDT", "ETHUSDT", "--duration", "12"],
        ["record", "--symbols", "BTCUSDT,ETHUSDT", "--duration", "12"],
        ["record", "--symbols", "BTCUSDT", "--symbols", "ETHUSDT", "--duration", "12"],
    ],
)
def test_all_three_spellings_are_one(words: list[str]) -> None:
    assert spread(words) == ["record", "--symbols", "BTCUSDT", "--symbols", "ETHUSDT", "--duration", "12"]


def test_other_words_are_left_alone() -> None:
    words = ["sql", "SELECT 1, 2", "--format", "csv"]
    assert spread(words) == words
