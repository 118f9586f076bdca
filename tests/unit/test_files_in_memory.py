"""Files of workers are in memory where that may be, and elsewhere where not."""

from pathlib import Path

import pytest

from app.observability import multiprocess
from tests.shared.accounts import nobody, shared_directory


def test_a_directory_is_used_by_who_may_write_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with shared_directory() as path:
        monkeypatch.setattr(multiprocess, "_MEMORY", path)
        with nobody():
            assert multiprocess.memory() == str(path)
        path.chmod(0o755)
        if path.owner() == "root":
            with nobody():
                assert multiprocess.memory() is None


def test_none_is_used_where_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(multiprocess, "_MEMORY", tmp_path / "none")
    assert multiprocess.memory() is None
