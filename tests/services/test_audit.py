"""The audit log: whole, in order, in one chain, whatever happens to processes and files."""

import fcntl
import gzip
import json
import os
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from app.audit import AuditLog, verify
from app.audit.log import BEGINNING, digest
from app.operator import cli
from app.service import service_of
from tests.shared.api import Api, b64u
from tests.shared.command import jose_hsm
from tests.shared.forks import fork
from tests.shared.waiting import PATIENCE_SECONDS, STATE

PROCESSES = 4
THREADS = 2
LINES = 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_in_turn(log: AuditLog, name: str, number: int) -> None:
    for count in range(number):
        log.record(name=name, number=count)


def write(path: str, name: str, number: int = LINES) -> None:
    """Write lines from several threads, as a worker does."""
    log = AuditLog(Path(path))
    threads = [
        threading.Thread(target=write_in_turn, args=(log, f"{name}.{thread}", number))
        for thread in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_the_first_line_begins_the_chain_and_each_holds_the_hash_of_the_one_before(path):
    log = AuditLog(path)
    for number in range(3):
        log.record(number=number)
    lines = path.read_bytes().splitlines()
    assert [json.loads(line)["prev"] for line in lines] == [
        BEGINNING,
        digest(lines[0]),
        digest(lines[1]),
    ]
    assert verify([path]).head == digest(lines[2])


def test_lines_of_parts_say_what_they_have_in_common_and_which_part_they_are(path):
    log, alike, other = AuditLog(path), {"kid": "a", "status": 200}, {"kid": "ä", "status": 404}
    log.record_all([(alike, 0), (alike, 1), (other, 2), (alike, 3), (dict(alike), None)])
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    names = [list(line) for line in lines]
    assert names[:4] == [["time", "kid", "status", "part", "prev"]] * 4
    assert names[4] == ["time", "kid", "status", "prev"]
    told = [(line["kid"], line["status"], line.get("part")) for line in lines]
    assert told == [("a", 200, 0), ("a", 200, 1), ("ä", 404, 2), ("a", 200, 3), ("a", 200, None)]
    assert verify([path]).broken is None
    assert verify([path]).lines == 5


def test_only_its_owner_reads_it(path):
    AuditLog(path).record(number=1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_processes_and_threads_share_one_chain_and_lose_no_line(path):
    forked = [write.__module__, write.__name__]
    processes = [
        fork("driver", [*forked, json.dumps([str(path), str(process)])], os.environ, files=(1, 2))
        for process in range(PROCESSES)
    ]
    assert [process.wait(PATIENCE_SECONDS) for process in processes] == [0] * PROCESSES
    report = verify([path])
    assert (report.broken, report.torn) == (None, 0)
    assert report.lines == PROCESSES * THREADS * LINES
    seen: dict[str, list[int]] = {}
    for entry in entries(path):
        seen.setdefault(entry["name"], []).append(entry["number"])
    assert set(map(tuple, seen.values())) == {tuple(range(LINES))}


def test_a_renamed_file_is_followed_by_one_that_goes_on_from_it(path):
    first, second = AuditLog(path), AuditLog(path)
    first.record(number=1)
    second.record(number=2)
    old = path.rename(path.with_suffix(".1"))
    second.record(number=3)
    first.record(number=4)
    assert [entry["number"] for entry in entries(path)] == [3, 4]
    report = verify([old, path])
    assert (report.broken, report.lines) == (None, 4)
    assert verify([path, old]).broken
    first_line = f"{path}: line 1 follows a line that is in none of the files"
    assert verify([path]).broken == first_line
    assert verify([path], after=verify([old]).head).broken is None


def test_a_compressed_file_is_read_as_it_was_and_one_that_is_cut_off_refused(path):
    AuditLog(path).record(number=1)
    old = path.rename(path.with_suffix(".1"))
    AuditLog(path).record(number=2)
    compressed = gzip.compress(old.read_bytes())
    old.write_bytes(compressed)
    report = verify([old, path])
    assert (report.broken, report.lines, report.torn) == (None, 2, 0)
    for damaged in (compressed[:-10], compressed[:12] + bytes(20) + compressed[32:]):
        old.write_bytes(damaged)
        with pytest.raises(OSError, match="audit"):
            verify([old, path])


def test_a_process_that_slept_through_a_whole_file_goes_on_from_its_last_line(path):
    sleeper, other = AuditLog(path), AuditLog(path)
    sleeper.record(number=1)
    oldest = path.rename(path.with_suffix(".2"))
    other.record(number=2)
    old = path.rename(path.with_suffix(".1"))
    path.touch(0o600)  # as logrotate does with "create"
    sleeper.record(number=3)
    report = verify([oldest, old, path])
    assert (report.broken, report.lines) == (None, 3)


@pytest.mark.parametrize("torn", [b'{"time":"2026', b"\x00\xff", b"x" * 20_000, b"[" * 20_000])
def test_a_torn_line_is_ended_chained_over_and_reported(path, torn):
    first, second = AuditLog(path), AuditLog(path)
    first.record(number=1)
    with path.open("ab") as file:
        file.write(torn)
    second.record(number=2)
    first.record(number=3)
    report = verify([path])
    assert (report.broken, report.torn, report.lines) == (None, 1, 4)


def test_what_is_done_to_a_torn_line_shows_too(path):
    AuditLog(path).record(number=1)
    with path.open("ab") as file:
        file.write(b"torn")
    AuditLog(path).record(number=2)
    path.write_bytes(path.read_bytes().replace(b"torn", b"born"))
    assert verify([path]).broken == f"{path}: line 3 does not follow the line before it"


# --- Its end ---


def cut_lines(path: Path) -> list[tuple[str, str]]:
    lines = [line for line in path.read_text().splitlines() if '"audit.cut"' in line]
    return [(entry["expected"], entry["found"]) for entry in map(json.loads, lines)]


CUTS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "last line": lambda lines: lines[:-1],
    "most lines": lambda lines: lines[:1],
    "last line changed": lambda lines: [*lines[:-1], lines[-1].replace(b":4", b":77")],
    "all replaced": lambda _: [b'{"time":"2026-01-02T03:04Z","prev":"%b"}\n' % BEGINNING.encode()],
    "several torn lines added": lambda lines: [*lines, b"torn\n", b"torn\n"],
}


@pytest.mark.parametrize("is_new", [False, True], ids=["the same process", "another process"])
@pytest.mark.parametrize("cut", CUTS)
def test_an_end_that_is_cut_off_is_noticed_and_written_down(path, cut, is_new):
    log = AuditLog(path)
    for number in range(5):
        log.record(number=number)
    expected = verify([path]).head
    lines = CUTS[cut](path.read_bytes().splitlines(keepends=True))
    path.write_bytes(b"".join(lines))
    if cut != "several torn lines added":
        assert verify([path]).broken == (
            f"{path}: the last line that was written, {expected}, is missing"
        )
    log = AuditLog(path) if is_new else log
    log.record(number=5)
    log.record(number=6)
    assert cut_lines(path) == [(expected, digest(lines[-1].removesuffix(b"\n")))]
    assert verify([path]).broken is None


def test_a_log_that_is_emptied_under_a_process_is_noticed(path):
    log = AuditLog(path)
    log.record(number=1)
    head = verify([path]).head
    os.truncate(path, 0)
    assert verify([path]).broken
    log.record(number=2)
    assert cut_lines(path) == [(head, BEGINNING)]
    assert verify([path]).broken == f"{path}: line 1 follows a line that is in none of the files"


@pytest.mark.parametrize(
    "torn", [b"", b'{"time":"2026', b"x" * 200_000 + b"\n", b'{"time":1}\n{"time":"2026-01-01"}\n']
)
def test_it_is_asked_for_a_line_since_an_instant(path, torn):
    log = AuditLog(path)
    assert not log.has(datetime.now(UTC), number=0)
    log.record(number=0, name="first")
    since = datetime.now(UTC)
    for number in range(1, 1000):
        log.record(number=number, name="later", kids=["a"])
    with path.open("ab") as file:
        file.write(torn)
    assert log.has(since, number=1, name="later")
    assert log.has(since, number=999, kids=["a"])
    assert not log.has(since, number=1, name="first")
    assert log.has(since - timedelta(days=1), number=0)
    assert not log.has(since + timedelta(days=1), number=999)


@pytest.mark.parametrize("has_more", [False, True])
def test_a_process_that_was_killed_before_the_lock_was_written_has_cut_nothing(path, has_more):
    log = AuditLog(path)
    log.record(number=1)
    kept = path.with_name("audit.log.lock").read_bytes()
    for number in range(3):
        log.record(number=number)
    with path.open("ab") as file:
        file.write(b"torn" if has_more else b"")
    path.with_name("audit.log.lock").write_bytes(kept)
    AuditLog(path).record(number=4)
    assert cut_lines(path) == []
    assert verify([path]).broken is None


@pytest.mark.parametrize("gone", ["lock", "log and lock", "content of the lock"])
def test_a_lock_that_is_deleted_or_replaced_splits_no_chain(path, gone):
    first, second = AuditLog(path), AuditLog(path)
    first.record(number=1)
    second.record(number=2)
    head = verify([path]).head
    lock = path.with_name("audit.log.lock")
    if gone == "content of the lock":
        os.truncate(lock, 0)
    else:
        lock.unlink()
    if gone == "log and lock":
        path.unlink()
    second.record(number=3)
    first.record(number=4)
    second.record(number=5)
    assert [entry["number"] for entry in entries(path)][-3:] == [3, 4, 5]
    whole = verify([path], after=str(head) if gone == "log and lock" else BEGINNING)
    assert whole.broken is None
    if gone == "log and lock":
        assert verify([path]).broken


def test_who_cannot_look_at_the_lock_keeps_nobody_waiting(tmp_path):
    directory, away = tmp_path / "log", tmp_path / "away"
    directory.mkdir()
    log = AuditLog(directory / "audit.log")
    log.record(number=1)
    directory.rename(away)
    directory.touch()  # no directory: not even that there is no lock can be said
    with pytest.raises(NotADirectoryError):
        log.record(number=2)
    with (away / "audit.log.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    directory.unlink()
    away.rename(directory)
    log.record(number=3)
    assert [entry["number"] for entry in entries(directory / "audit.log")] == [1, 3]


def test_a_log_without_a_lock_says_nothing_of_its_end(path, capsys, monkeypatch):
    AuditLog(path).record(number=1)
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    status, printed = run(capsys, monkeypatch, str(copy))
    assert (status, "missing at the end is not known" in printed) == (0, True)
    assert "not known" not in run(capsys, monkeypatch, str(path))[1]


def test_nothing_but_torn_lines_is_no_audit_log(path, capsys, monkeypatch):
    path.write_bytes(b"garbage\n\x00\xff\ngarbage")
    assert verify([path]).broken == f"{path}: there is no line that can be read"
    assert run(capsys, monkeypatch, str(path))[0] == 1


CHANGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    "the first line removed": (lambda lines: lines[1:], 1),
    "a line changed": (lambda lines: [lines[0], lines[1].replace(b"1", b"7", 1), *lines[2:]], 3),
    "a line removed": (lambda lines: [lines[0], *lines[2:]], 2),
    "a line repeated": (lambda lines: [lines[0], lines[0], *lines[1:]], 2),
    "two lines exchanged": (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_first_broken_line_is_named(path, change):
    log = AuditLog(path)
    for number in range(5):
        log.record(number=number)
    altered, line = CHANGES[change]
    path.write_bytes(b"".join(altered(path.read_bytes().splitlines(keepends=True))))
    before = "follows a line that is in none of the files"
    expected = before if line == 1 else "does not follow the line before it"
    assert verify([path]).broken == f"{path}: line {line} {expected}"


def run(capsys: Any, monkeypatch: Any, *arguments: str) -> tuple[int, str]:
    """Run ``jose-hsm audit verify`` in this process."""
    for name in [name for name in os.environ if name.startswith("JOSE_HSM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("JOSE_HSM_PKCS11_MODULE", "/none")
    monkeypatch.setenv("JOSE_HSM_TOKEN_LABEL", "none")
    monkeypatch.setenv("JOSE_HSM_PIN_FILE", "/none")
    status = cli.main(["audit", "verify", *arguments])
    return status, capsys.readouterr().out


def test_the_command_tells_of_the_chain_and_of_its_end(path, capsys, monkeypatch):
    log = AuditLog(path)
    log.record(number=1)
    head = digest(path.read_bytes().splitlines()[0])
    log.record(number=2)
    status, printed = run(capsys, monkeypatch, str(path))
    assert (status, "lines: 2, of them torn: 0" in printed) == (0, True)
    assert f"head: {digest(path.read_bytes().splitlines()[1])}" in printed
    assert run(capsys, monkeypatch, "--head", head, str(path))[0] == 0
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[1])
    status, printed = run(capsys, monkeypatch, "--head", head, str(path))
    assert (status, f"no line has the hash {head}" in printed) == (1, True)
    assert run(capsys, monkeypatch, "--after", head, str(path))[0] == 0
    path.write_bytes(2 * path.read_bytes())
    status, printed = run(capsys, monkeypatch, "--after", head, str(path))
    assert (status, "line 2 does not follow" in printed) == (1, True)


@pytest.fixture
def log(environment: Any, tmp_path: Path) -> dict[str, str]:
    return {**environment, "JOSE_HSM_AUDIT_LOG": str(tmp_path / "audit.log")}


def seen(path: Path) -> list[tuple[str, int, bool]]:
    return [
        (entry["endpoint"], entry["status"], entry["kid"] is not None) for entry in entries(path)
    ]


def test_every_use_and_every_refusal_is_in_it_before_the_answer(log, serve, tmp_path):
    with serve(log) as url:
        api = Api.over_http(url)
        key = api.create(kty="oct", alg="A256GCM")
        jwe = api.ok("/encrypt", {"kid": key["kid"], "alg": "dir", "enc": "A256GCM", "data": ""})
        api.ok("/decrypt", jwe)
        jwe["tag"] = b64u(bytes(16))
        assert api.post("/decrypt", jwe).status == 422
        assert api.post("/sign", {"kid": key["kid"], "alg": "ES256", "data": ""}).status == 422
        assert api.post("/mac", {"kid": key["kid"], "alg": "none", "data": ""}).status == 422
        assert api.post("/mac", {"kid": "unknown", "alg": "HS256", "data": ""}).status == 404
        assert api.post("/mac", {"kid": key["kid"], "alg": "HS256", "data": "="}).status == 400
        assert api.delete(key["kid"]).status == 204
        assert api.delete(key["kid"]).status == 404
        requests.get(url + "/health/ready", timeout=STATE.seconds)
        lines = entries(tmp_path / "audit.log")
    assert seen(tmp_path / "audit.log") == [
        ("keys.create", 200, False),
        ("encryption.encrypt", 200, True),
        ("encryption.decrypt", 200, True),
        ("encryption.decrypt", 422, True),
        ("signing.sign", 422, True),
        ("signing.mac", 422, True),
        ("signing.mac", 404, False),
        ("keys.destroy", 204, True),
        ("keys.destroy", 404, True),
    ]
    assert lines[0]["new_kid"] == key["kid"]
    assert {line["principal"] for line in lines} == {"anonymous"}
    assert {line["address"] for line in lines} == {"127.0.0.1"}
    assert (lines[3]["error"], lines[3]["alg"], lines[3]["enc"]) == (
        "decryption_failed",
        "dir",
        "A256GCM",
    )
    assert verify([tmp_path / "audit.log"]).broken is None


def test_it_says_what_became_of_a_key(log, serve, tmp_path):
    with serve(log) as url:
        api = Api.over_http(url)
        path = f"/keys/{api.create(kty='oct', alg='HS256')['kid']}"
        operations = {"operations": ["read", "mac"]}
        expiry = {"expires": "2099-01-01T00:00:00Z", "name": "its name", "state": "deactivated"}
        assert api.request("PUT", f"{path}/grants/token:bob", json=operations).status == 200
        assert api.request("DELETE", f"{path}/grants/token:bob").status == 204
        assert api.request("DELETE", f"{path}/grants/something secret").status == 400
        assert api.request("PATCH", path, json=expiry).status == 200
        assert api.request("PATCH", path, json={"expires": None}).status == 200
        assert api.post(f"{path}/tags", {"tags": ["b", "a"]}).status == 200
        assert api.request("DELETE", f"{path}/tags", json={"tags": ["a"]}).status == 200
        assert api.request("PATCH", path, json={"owner": "token:bob"}).status == 200
    lines = entries(tmp_path / "audit.log")
    _, granted, revoked, changed, unlimited, tagged, untagged, handed_over = lines
    assert unlimited["expires_at"] is None
    assert (tagged["tagged"], untagged["untagged"]) == (["a", "b"], ["a"])
    assert (granted["grantee"], granted["operations"]) == ("token:bob", ["mac", "read"])
    assert (revoked["grantee"], revoked["operations"]) == ("token:bob", [])
    assert changed["state"] == "deactivated"
    assert changed["expires_at"].startswith("2099-01-01")
    assert handed_over["owner"] == "token:bob"
    assert "name" not in {*changed, *handed_over}


def test_without_a_line_there_is_no_answer_and_no_key(log, serve, tmp_path, application):
    path, token = tmp_path / "audit.log", service_of(application).hsm
    with serve(log, workers=1) as url:
        api = Api.over_http(url)
        key = api.create(kty="oct", alg="HS256")
        before = token.inventory().keys()
        old = path.rename(tmp_path / "old")
        path.mkdir()  # nothing can be written to it
        use = {"kid": key["kid"], "alg": "HS256", "data": ""}
        answer = api.post("/mac", use)
        assert answer.refusal == (503, "unavailable")
        assert "Retry-After" in answer.headers
        assert api.post("/keys", {"kty": "oct", "alg": "HS256"}).status == 503
        assert token.inventory().keys() <= before  # others' leavings are cleared away at any time
        assert (
            'audit_lines_total{outcome="failed"} 2.0'
            in requests.get(url + "/metrics", timeout=STATE.seconds).text
        )
        path.rmdir()
        api.ok("/mac", use)
    assert verify([old, path]).broken is None


def test_a_destruction_without_a_line_is_finished_with_one(log, serve, tmp_path):
    path = tmp_path / "audit.log"
    with serve(log, workers=1) as url:
        api = Api.over_http(url)
        kid = api.create(kty="oct", alg="HS256")["kid"]
        path.rename(tmp_path / "old")
        path.mkdir()
        assert api.delete(kid).refusal == (503, "unavailable")
        assert api.get(f"/keys/{kid}").refusal == (404, "not_found")
        path.rmdir()
        settled, *_ = jose_hsm(log, "reconcile").stdout.split("in the registry")
        assert f"\n  {kid}\n" in settled
    destroyed = [line["destroyed"] for line in entries(path) if "destroyed" in line]
    assert destroyed.count(kid) == 1  # others have left some, too


def test_a_key_told_of_before_outlives_a_repetition_without_a_line(log, serve, tmp_path):
    path, body = tmp_path / "audit.log", {"kty": "oct", "alg": "HS256"}
    with serve(log, workers=1) as url:
        api = Api.over_http(url)
        told, untold = ({"headers": {"Idempotency-Key": f"{path}{i}"}} for i in range(2))
        key = api.post("/keys", body, **told).body
        path.rename(tmp_path / "old")
        path.mkdir()
        assert api.post("/keys", body, **told).status == 503
        assert api.post("/keys", body, **untold).status == 503
        path.rmdir()
        assert api.post("/keys", body, **told).body == key
        assert entries(path)[-1]["kid"] == key["kid"]
        assert entries(path)[-1]["new_kid"] is None
        several = {"headers": {"Idempotency-Key": f"{path} several"}}
        made, _ = (api.post("/keys", {**body, "count": 2}, **several).body for _ in range(2))
        assert entries(path)[-1]["kids"] == [one["kid"] for one in made["keys"]]
        another = api.post("/keys", body, **untold).body  # not the one that was taken back
        for kid in (key["kid"], another["kid"]):
            api.ok("/mac", {"kid": kid, "alg": "HS256", "data": ""})


def test_it_can_be_switched_off(environment, serve):
    path = Path(environment["JOSE_HSM_STATE_DIR"]) / "audit.log"
    with serve({**environment, "JOSE_HSM_AUDIT_LOG": "off"}) as url:
        kid = Api.over_http(url).create(kty="oct", alg="HS256")["kid"]
    assert not path.exists() or kid not in path.read_text()  # other services write there
