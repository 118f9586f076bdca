"""Files are replaced whole or not at all, and what must outlive a power cut is on the disk."""

import os
import stat
from pathlib import Path

import pytest

from app.host import host_name
from hsm import replace, replacing
from hsm.cryptoki.pin_latch import PinLatch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch, path: Path) -> list[tuple[str, bytes]]:
    """What was put on the disk, and what ``path`` held when it was."""
    calls = []
    fsync = os.fsync

    def recording(descriptor: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        size = os.fstat(descriptor).st_size
        held = path.read_bytes() if path.exists() else b""
        calls.append(("directory" if is_directory else f"{size} bytes", held))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    return calls


def test_a_file_takes_the_place_of_the_old_one_for_its_owner_alone(path):
    replace(path, b"new", synced=False)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_it_has_the_mode_that_is_asked_for_whatever_the_umask(path):
    before = os.umask(0o077)
    try:
        replace(path, b"new", mode=0o644, synced=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_who_reads_meanwhile_finds_the_old_one_whole(path):
    with path.open("rb") as opened, replacing(path, synced=False) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        assert opened.read() == b"old"
    assert path.read_bytes() == b"new"


def test_after_a_failure_there_is_the_old_one_and_nothing_else(path):
    def write_half() -> None:
        with replacing(path, synced=True) as file:
            file.write(b"half")
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_contents_are_on_the_disk_before_they_have_the_name_and_the_name_after(path, synced):
    replace(path, b"newer", synced=True)
    assert synced == [("5 bytes", b"old"), ("directory", b"newer")]


def test_what_need_not_outlive_a_power_cut_is_not_synced(path, synced):
    replace(path, b"new", synced=False)
    assert synced == []


def test_a_refused_pin_outlives_a_power_cut(path, synced):
    latch = PinLatch(path)
    latch.begin(b"serial", "4711")
    trial = path.with_suffix(".trial")
    assert synced == [(f"{trial.stat().st_size} bytes", b"old"), ("directory", b"old")]
    latch.close()
    assert PinLatch(path).is_closed(b"serial", "4711", was_wrong=False)


def test_a_latch_that_cannot_be_written_says_why_and_holds_in_its_process(tmp_path, caplog):
    latch = PinLatch(tmp_path / "none" / "pin.latch")
    latch.begin(b"serial", "4711")
    latch.close()
    assert latch.is_closed(b"serial", "4711", was_wrong=False)
    reasons = [(line.getMessage().partition(": ")[2], line.exc_info) for line in caplog.records]
    assert reasons == [("No such file or directory", None)] * 2


def test_the_name_of_a_host_is_made_once(tmp_path):
    name = host_name(tmp_path)
    assert name
    assert host_name(tmp_path) == name
    assert (tmp_path / "host").read_text("ascii") == f"{name}\n"
