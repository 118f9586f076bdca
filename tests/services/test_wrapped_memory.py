"""What is found in the memory of a worker right after an import, wrapped and plain."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.jwk import RSAKey

from scripts.throwaway import make_token
from scripts.workers import workers_of
from tests.http.test_wrapped_imports import body_of, der, public_of, wrapped_for
from tests.shared.api import Api, b64u
from tests.shared.forks import server
from tests.shared.waiting import until

WINDOW_BYTES = 16
AES = hashlib.sha256(b"the AES key").digest()


def windows(secret: bytes, *, step_bytes: int) -> set[bytes]:
    """Parts of ``secret``; of what is longer than two of them some part is found at any step."""
    last = len(secret) - WINDOW_BYTES
    return {secret[at : at + WINDOW_BYTES] for at in range(0, last + 1, step_bytes)}


def forms(secret: bytes) -> set[bytes]:
    """Parts of ``secret`` as bytes, and as the text of it that is in a request."""
    return windows(secret, step_bytes=WINDOW_BYTES) | windows(
        b64u(secret).encode("ascii"), step_bytes=WINDOW_BYTES
    )


def memory(pid: int) -> Iterator[bytes]:
    """Everything that a process can write to; skips the test where nobody may look."""
    try:
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as found:
            for line in Path(f"/proc/{pid}/maps").read_text("ascii").splitlines():
                bounds, mode, *_ = line.split()
                if mode.startswith("rw"):
                    begin, end = (int(bound, 16) for bound in bounds.split("-"))
                    found.seek(begin)
                    yield found.read(end - begin)
    except PermissionError as error:
        pytest.skip(f"the memory of another process may not be read: {error}")


def held(pids: list[int], sought: Mapping[str, set[bytes]]) -> set[str]:
    """The names of those of which a part is in the memory of one of the processes."""
    parts = [part for pid in pids for part in memory(pid)]
    return {
        name for name, each in sought.items() if any(one in part for part in parts for one in each)
    }


@pytest.mark.long
def test_a_wrapped_key_is_nowhere_and_the_same_key_is_found_once_it_came_in_plain(tmp_path):
    key = rsa.generate_private_key(65537, 2048)
    numbers = key.private_numbers()
    sought = {
        "d": forms(numbers.d.to_bytes(256)),
        "p": forms(numbers.p.to_bytes(128)),
        "q": forms(numbers.q.to_bytes(128)),
        "the AES key": windows(AES, step_bytes=1),
    }
    with server(make_token(tmp_path / "state"), workers=1) as running:
        api = Api.over_http(running.url)
        wrapping = api.ok("/wrapping-keys", {})
        octets = wrapped_for(wrapping, der(key), AES)
        api.ok("/keys", body_of(wrapping, octets, **public_of(key), alg="RS256"))
        pids = workers_of(running.process.pid)
        assert pids
        assert held(pids, sought) == set()

        # Python may use the memory again at once, or not: so it comes in until a part is found.
        plain = RSAKey.import_key(key).as_dict(private=True) | {"alg": "RS256"}
        until(lambda: api.ok("/keys", plain) and held(pids, {"d": sought["d"]}))
