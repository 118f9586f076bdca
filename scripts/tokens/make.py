"""What all makes of tokens have in common."""

import atexit
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

ROOT: Final = Path(__file__).parents[2]
LABEL: Final = "throwaway"
NEWER_CURVES: Final = ("EdDSA", "Ed25519", "Ed448", "X25519")
OAEP_BY_ITSELF: Final = "RSA-OAEP with SHA-2 in the token"
SEVERAL: Final = "several processes at a time"
IMPORTS: Final = "imports"
NOT_DECRYPTING: Final = "pairs that may not decrypt"
UNCHANGED: Final = "attributes that cannot be set"
SENSITIVE: Final = "CKR_ATTRIBUTE_SENSITIVE"
COUNTED: Final = "calls that go through its list of functions"
TOLD: Final = "mechanisms that all can be told"
UNUSED: Final = "keys that a refused use leaves as they were"
WRAPPED_IMPORTS: Final = "wrapped"  # a refusal says that 'wrapped import' is not available
ANY_SIZE: Final = "CEKs of sizes that no key has"
KEY_MANAGEMENT: Final = (
    *("RSA-OAEP", "RSA-OAEP-256", "RSA-OAEP-384", "RSA-OAEP-512", "RSA1_5"),
    *("A128KW", "A192KW", "A256KW", "A128GCMKW", "A192GCMKW", "A256GCMKW"),
    *("ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A192KW", "ECDH-ES+A256KW"),
)
CBC_HMAC: Final = ("A128CBC-HS256", "A192CBC-HS384", "A256CBC-HS512")
GCM: Final = ("A128GCM", "A192GCM", "A256GCM")
HISTORY: Final = ("CKA_ALWAYS_SENSITIVE", "CKA_NEVER_EXTRACTABLE")
ML_DSA: Final = ("MLDSA44", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87")
_START_SECONDS: Final = 60  # a bound for what hangs: a busy machine may take long


def imported_wrapped(name: str) -> str:
    """Return how ``lacks`` names the import of wrapped keys of a kind, or on a curve."""
    return f"{name} imported wrapped"


def digests_signed_by(alg: str) -> str:
    """Return how ``lacks`` names signatures over what has been hashed outside."""
    return f"digests signed by {alg}"


class SoftwareToken(Protocol):
    """One make of token.

    ``lacks`` names all algorithms and curves that it does not offer, attributes (CKA_*) that its
    objects do not have or that are not as they are asked for, and what else others do. Tests leave
    out what is named there and nothing else: who offers less than yesterday fails.

    Some have daemons, which end with the process that makes the token or serves it.
    """

    lacks: frozenset[str]
    has_daemons: bool = False
    most_used_keys: int | None = None  # between two starts of a worker, if there is a limit
    pin_bytes: int = 8  # half of the characters of a PIN

    @property
    def workers(self) -> int:
        """As many as it is tried with."""
        return 1 if SEVERAL in self.lacks else 2

    @property
    def is_built(self) -> bool:
        """Whether nothing has to be compiled to make one."""
        return True

    def needs(self) -> str | None:
        """Return what has to be installed to make one, or ``None`` if all is there."""

    def make(self, state_dir: Path, pin: str) -> dict[str, str]:
        """Make a token whose files are under ``state_dir``; return the settings that name it."""

    def serve(self, state_dir: Path) -> None:
        """Start the daemons of a token that was made before, if it has any."""
        return


def run(
    command: list[str], environment: Mapping[str, str] = MappingProxyType({}), typed: str = ""
) -> str:
    """Run ``command``, with ``typed`` as its input; raise ``RuntimeError`` if it fails."""
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        input=typed,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def start(
    command: list[str],
    is_there: Callable[[], bool],
    environment: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Start a daemon that ends with the main thread of this process; return when it is there."""
    tied = ["setpriv", "--pdeathsig", "KILL", *command]
    process = subprocess.Popen(
        tied,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    atexit.register(_end, process)
    deadline = time.monotonic() + _START_SECONDS
    while not is_there():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{command[0]} does not start")
        time.sleep(0.02)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
