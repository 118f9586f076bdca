"""The table of faults is whole, and what it names is there."""

import re
from pathlib import Path

from tests.shared.documents import rows, shown_by

ROWS = rows(Path(__file__).with_name("README.md"), "| | Fault |")


def test_every_fault_has_one_row():
    assert [int(number) for number, _, _ in ROWS] == list(range(1, 51))
    assert len({name for _, name, _ in ROWS}) == 50


def test_every_fault_is_shown_or_left_out_with_a_reason():
    for _, name, shown in ROWS:
        assert shown_by(shown) or re.fullmatch(r"left out: .{10,}", shown), name
