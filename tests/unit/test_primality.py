"""The process that is asked whether the factors of an RSA key are prime."""

import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from app.errors import BadRequest, HostExhausted
from app.jwk import primality
from tests.unit.test_key_material import members_from, number, read_rsa


@pytest.fixture(scope="module")
def sound() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a script in the place of the process."""

    def answer(script: str) -> None:
        (tmp_path / "process.py").write_text(script)
        monkeypatch.setattr(primality, "_PROCESS", tmp_path / "process.py")

    return answer


def composite() -> rsa.RSAPrivateKey:
    """A key that is consistent in all but that its ``p`` is a product of two primes."""
    return read_rsa(members_from(number("r") * number("s"), number("q")))


def test_a_sound_key_passes(sound):
    primality.require_primes(sound)


def test_a_composite_factor_is_found():
    with pytest.raises(BadRequest, match="Fields 'p' and 'q' must be prime numbers"):
        primality.require_primes(composite())


def test_the_process_alone_is_asked(answering):
    """So that no check of this process can hold up the other threads."""
    answering("print('sound')")
    primality.require_primes(composite())


@pytest.mark.parametrize(
    "script",
    [
        "",
        "raise SystemExit(0)",
        "raise ImportError",
        "print('sound'[:3])",
        "print('unsound')",
        "print('sound\\nrefused')",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    ],
)
def test_without_a_word_of_its_own_there_is_no_verdict(script, answering, sound):
    answering(script)
    with pytest.raises(HostExhausted):
        primality.require_primes(sound)


def test_a_process_without_an_answer_is_ended(answering, sound, tmp_path, monkeypatch):
    answering(
        "import os, pathlib, sys, time\n"
        "pathlib.Path(sys.argv[0]).with_name('pid').write_text(str(os.getpid()))\n"
        "time.sleep(600)"
    )
    (pid := tmp_path / "pid").touch()
    for seconds in (2.0, 20.0, 200.0):  # a busy machine may take longer to begin it
        monkeypatch.setattr(primality, "_SECONDS", seconds)
        with pytest.raises(HostExhausted):
            primality.require_primes(sound)
        if pid.read_text():
            break
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_the_key_goes_through_the_pipe_alone_and_nothing_else_goes_along(
    answering, sound, tmp_path, monkeypatch
):
    monkeypatch.setenv("JOSE_HSM_PIN", "4711")
    seen = tmp_path / "seen.json"
    answering(
        "import json, os, pathlib, sys\n"
        "found = {'argv': sys.argv[1:], 'names': sorted(os.environ), 'path': sys.path,"
        " 'descriptors': [fd for fd in range(3, 1000) if os.path.exists(f'/proc/self/fd/{fd}')],"
        " 'numbers': len(sys.stdin.read().split())}\n"
        f"pathlib.Path({str(seen)!r}).write_text(json.dumps(found))\n"
        "print('sound')"
    )
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    try:
        primality.require_primes(sound)
    finally:
        os.close(read_end)
        os.close(write_end)
    found = json.loads(seen.read_text())
    assert found["argv"] == [str(primality._LIBRARIES)]
    assert set(found["names"]) <= {"LC_CTYPE", "LD_LIBRARY_PATH"}  # Python sets the first itself
    assert str(primality._PROCESS.parent) not in found["path"]
    assert found["descriptors"] == []
    assert found["numbers"] == 8


def test_nobody_may_look_into_the_process_before_it_has_the_key(sound, tmp_path, monkeypatch):
    """Its first import says so: a library of this test in the place of ``cryptography``."""
    library = tmp_path / "cryptography"
    library.mkdir()
    (library / "__init__.py").write_text(
        "import ctypes, os, pathlib, sys\n"
        "dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)\n"
        "unread = os.fstat(0).st_mode\n"
        "pathlib.Path(__file__).with_name('dumpable').write_text(f'{dumpable} {unread}')\n"
    )
    monkeypatch.setattr(primality, "_LIBRARIES", tmp_path)
    with pytest.raises(HostExhausted):
        primality.require_primes(sound)
    dumpable, mode = (library / "dumpable").read_text().split()
    assert dumpable == "0"
    assert stat.S_ISFIFO(int(mode))
