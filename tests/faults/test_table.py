"""The table of faults is whole, and what it names is there."""

import ast
import re
from pathlib import Path

from scripts.throwaway import ROOT

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in Path(__file__).with_name("README.md").read_text("utf-8").splitlines()
    if re.match(r"\| \d", line)
]
NAMED = re.compile(r"`((?:tests|scripts)/[\w/]+\.py)(?:::(\w+))?`")


def test_every_fault_has_one_row():
    assert [int(number) for number, _, _ in ROWS] == list(range(1, 51))
    assert len({name for _, name, _ in ROWS}) == 50


def test_every_fault_is_shown_or_left_out_with_a_reason():
    for _, name, shown in ROWS:
        assert NAMED.search(shown) or re.fullmatch(r"left out: .{10,}", shown), name


def test_what_shows_a_fault_is_there():
    for _, _, shown in ROWS:
        for path, test in NAMED.findall(shown):
            tree = ast.parse((ROOT / path).read_text("utf-8"))
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert not test or test in functions, f"{path}::{test}"
