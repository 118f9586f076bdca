"""Whether the factors of an RSA key are prime, found out while other threads run.

OpenSSL takes 40 ms for it, 0.3 s at 4096 bits, and ``cryptography`` keeps the interpreter lock
meanwhile: whoever imports keys would hold up everybody. So it is asked in a process of its own,
that gets the key through a pipe, sees no setting or descriptor of ours, and ends with the answer.
"""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import cryptography
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from app.errors import BadRequest, HostExhausted

_PROCESS: Final = Path(__file__).with_name("primality_process.py")
_LIBRARIES: Final = Path(cryptography.__file__).parents[1]
_SECONDS: Final = 60.0
_SOUND: Final = b"sound\n"
_REFUSED: Final = b"refused\n"


def require_primes(key: RSAPrivateKey) -> None:
    """Raise ``BadRequest`` unless OpenSSL finds ``p`` and ``q`` prime, and the rest consistent.

    Raises ``HostExhausted`` if the process was ended from outside or had no processor for a minute.
    """
    word = _word_on(_written(key))
    if word == _REFUSED:
        raise BadRequest("Fields 'p' and 'q' must be prime numbers")
    if word != _SOUND:
        raise HostExhausted


def _written(key: RSAPrivateKey) -> bytes:
    numbers = key.private_numbers()
    public = numbers.public_numbers
    private = (numbers.p, numbers.q, numbers.d, numbers.dmp1, numbers.dmq1, numbers.iqmp)
    return " ".join(f"{number:x}" for number in (*private, public.e, public.n)).encode("ascii")


def _word_on(written: bytes) -> bytes:
    """Return what the process says, by its words alone: it may be anybody who reaps it."""
    with suppress(subprocess.TimeoutExpired):
        return subprocess.run(  # noqa: S603  # a script of ours
            [sys.executable, "-I", "-S", _PROCESS, _LIBRARIES],
            input=written,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
            timeout=_SECONDS,
            check=False,
        ).stdout
    return b""
