"""SoftHSM's directory full, read-only or damaged, no file descriptors, and logs nobody reads."""

import fcntl
import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from scripts.throwaway import make_token
from tests.faults.service import Service, use
from tests.shared.api import Api
from tests.shared.examples import rounds
from tests.shared.forks import server as running

HMAC = {"kty": "oct", "alg": "HS256"}
EC = {"kty": "EC", "crv": "P-256", "alg": "ES256"}
REFUSED = {503}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 KiB, where a token shall be."""
    tokens = tmp_path / "disk" / "tokens"
    tokens.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "jose-hsm", tokens], check=False
    )
    if done.returncode:
        pytest.skip("a small disk takes root to mount")
    yield tokens
    subprocess.run(["umount", "--lazy", tokens], check=True)


@contextmanager
def token_on(disk: Path, settings: dict[str, str]) -> Iterator[None]:
    """Move the token of ``settings`` to ``disk`` for one ``with`` block."""
    conf, own = Path(settings["SOFTHSM2_CONF"]), Path(settings["JOSE_HSM_STATE_DIR"]) / "tokens"
    subprocess.run(["cp", "-a", f"{own}/.", disk], check=True)
    conf.write_text(conf.read_text().replace(str(own), str(disk)))
    yield


def assert_keys_are_used_and_none_is_made(service: Service, keys: list[dict[str, Any]]) -> None:
    for members in (HMAC, EC):
        assert service.api.post("/keys", members).status in REFUSED
    for key in keys:
        assert use(service.api, key) == 200


def test_on_a_full_disk_keys_are_used_and_none_is_made(serve_faulty, tmp_path, small_disk):
    settings = make_token(tmp_path / "state")
    with token_on(small_disk, settings), serve_faulty(settings=settings) as service:
        keys = [service.create(**HMAC), service.create(**EC)]
        filling = small_disk / "filling"
        with suppress(OSError), filling.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        assert_keys_are_used_and_none_is_made(service, keys)
        filling.unlink()
        service.wait_until_ready()
        service.create(**EC)
        service.assert_sound()
        assert "left alone): 0\n" in service.reconcile()


def test_on_a_read_only_disk_keys_are_used_and_none_is_made(serve_faulty, tmp_path, small_disk):
    settings = make_token(tmp_path / "state")
    with token_on(small_disk, settings), serve_faulty(settings=settings) as service:
        keys = [service.create(**HMAC), service.create(**EC)]
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        assert_keys_are_used_and_none_is_made(service, keys)
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        service.wait_until_ready()
        service.create(**EC)
        service.assert_sound()
        assert "left alone): 0\n" in service.reconcile()


def test_without_file_descriptors_no_key_is_said_to_be_gone(serve_faulty):
    with serve_faulty() as service:
        keys = [service.create(**HMAC), service.create(**EC)]
        service.reload()  # nothing is remembered of them
        service.wait_until_ready()
        (worker,) = service.workers
        api = service.api
        use(api, service.keys[0])  # connected while that is possible
        before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        none_more = 3  # standard input, output and error are open, whatever else is
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (none_more, before[1]))
        assert {use(api, key) for key in keys for _ in range(6)} <= {200, 503}
        resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
        service.assert_sound()


@pytest.mark.parametrize("damage", [b"", b"garbage" * 64])
def test_a_damaged_object_is_503_and_its_neighbours_work(serve_faulty, damage):
    with serve_faulty() as service:
        keys = [service.create(**HMAC) for _ in range(2)]
        tokens = service.state_dir / "tokens"
        before = set(tokens.glob("*/*.object"))
        victim = service.create(**HMAC)
        service.keys.remove(victim)
        (path,) = set(tokens.glob("*/*.object")) - before
        path.write_bytes(damage)
        assert use(service.api, victim) in {200, 503}  # it may still be in memory
        service.reload()
        service.wait_until_ready()
        assert use(service.api, victim) == 503
        assert all(use(service.api, key) == 200 for key in keys)
        service.create(**HMAC)
        service.assert_sound()


def test_a_service_whose_logs_nobody_reads_goes_on(tmp_path):
    fifo = tmp_path / "logs"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    settings = make_token(tmp_path / "state") | {"JOSE_HSM_LOG_LEVEL": "info"}
    with fifo.open("wb", buffering=0) as log, running(settings, log=log) as server:
        api = Api.over_http(server.url)
        with ThreadPoolExecutor(2) as clients:
            read_until = threading.Event()
            clients.submit(_drain, reader, read_until)
            try:
                key = api.create(**HMAC)
            finally:  # else a failure would wait for the reader for ever
                read_until.set()
        _fill(fifo)
        for _ in range(rounds(200, short=25)):  # lines for several times what the pipe takes
            assert use(api, key) == 200
        read_until.clear()
        threading.Thread(target=_drain, args=(reader, read_until), daemon=True).start()
    read_until.set()


def _fill(fifo: Path) -> None:
    writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.close(writer)


def _drain(reader: int, until: threading.Event) -> None:
    while not until.wait(0.01):
        with suppress(BlockingIOError):
            os.read(reader, 65536)
