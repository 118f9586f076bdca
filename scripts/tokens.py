"""Software tokens to try the service on: how each is made, what it needs, and what it lacks."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from app.operator.serving.development import softhsm_module

_ROOT: Final = Path(__file__).parent.parent
LABEL: Final = "throwaway"
_NEWER_CURVES: Final = ("EdDSA", "Ed25519", "Ed448", "X25519")
OAEP_BY_ITSELF: Final = "RSA-OAEP with SHA-2 in the token"
ANY_SIZE: Final = "CEKs of sizes that no key has"
_ML_DSA: Final = ("MLDSA44", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87")
_HISTORY: Final = ("CKA_ALWAYS_SENSITIVE", "CKA_NEVER_EXTRACTABLE")
_KRYOPTIC: Final = _ROOT / "scripts" / "kryoptic"
_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jose-hsm"


def imported_wrapped(name: str) -> str:
    """Return how ``lacks`` names the import of wrapped keys of a kind, or on a curve."""
    return f"{name} imported wrapped"


class SoftwareToken(Protocol):
    """One make of token.

    ``lacks`` names all algorithms and curves that it does not offer, attributes (CKA_*) that its
    objects do not have or that are not as they are asked for, and what else others do. Tests leave
    out what is named there and nothing else: who offers less than yesterday fails.
    """

    lacks: frozenset[str]

    @property
    def is_built(self) -> bool:
        """Whether nothing has to be compiled to make one."""
        return True

    def needs(self) -> str | None:
        """Return what has to be installed to make one, or ``None`` if all is there."""

    def make(self, state_dir: Path, pin: str) -> dict[str, str]:
        """Make a token whose files are under ``state_dir``; return the settings that name it."""


class SoftHsm(SoftwareToken):
    """SoftHSM 2, as Debian and Ubuntu have it."""

    lacks = frozenset(
        {OAEP_BY_ITSELF, *_ML_DSA, *map(imported_wrapped, ("Ed25519", "Ed448", "X25519"))}
    )

    def needs(self) -> str | None:
        """See ``SoftwareToken``."""
        return None if shutil.which("softhsm2-util") else "softhsm2"

    def make(self, state_dir: Path, pin: str) -> dict[str, str]:
        """See ``SoftwareToken``."""
        (state_dir / "tokens").mkdir()
        conf = state_dir / "softhsm.conf"
        conf.write_text((_ROOT / "softhsm.conf").read_text().replace("@STATE_DIR@", str(state_dir)))
        environment = {"SOFTHSM2_CONF": str(conf)}
        command = ["softhsm2-util", "--init-token", "--free", "--label", LABEL]
        _run([*command, "--pin", pin, "--so-pin", pin], environment)
        return environment | {
            "JOSE_HSM_PKCS11_MODULE": str(softhsm_module()),
            "JOSE_HSM_TOKEN_LABEL": LABEL,
        }


class Nss(SoftwareToken):
    """The software token of Mozilla's NSS, as Debian and Ubuntu have it."""

    lacks = frozenset(
        {
            *("CKA_ALLOWED_MECHANISMS", "CKA_COPYABLE", "CKA_LOCAL", "CKA_DERIVE"),
            *("ES256K", *_NEWER_CURVES, *_ML_DSA, ANY_SIZE),
            *map(imported_wrapped, ("RSA", "P-256", "P-384", "P-521")),
        }
    )

    def needs(self) -> str | None:
        """See ``SoftwareToken``."""
        return None if shutil.which("certutil") and _libraries() else "libnss3 libnss3-tools"

    def make(self, state_dir: Path, pin: str) -> dict[str, str]:
        """See ``SoftwareToken``."""
        database = state_dir / "nss"
        database.mkdir()
        _run(["certutil", "-N", "-d", f"sql:{database}", "-f", str(state_dir / "pin")])
        parameters = f"configdir='sql:{database}' certPrefix='' keyPrefix='' secmod='secmod.db'"
        return {
            "JOSE_HSM_PKCS11_MODULE": str(_libraries()[0]),
            "JOSE_HSM_PKCS11_PARAMETERS": f"{parameters} flags=",
            "JOSE_HSM_TOKEN_LABEL": "NSS Certificate DB",
        }


class Kryoptic(SoftwareToken):
    """Kryoptic, built from crates.io once for each Cargo.lock.

    ``features`` are those of the crate that say on which OpenSSL: that of the system, here 3.0, or
    a newer one that is built with it.
    """

    def __init__(self, features: str, *, lacks: Iterable[str] = ()) -> None:
        self._features = features
        self.lacks = frozenset({"ES256K", ANY_SIZE, *_HISTORY, *lacks})

    @property
    def is_built(self) -> bool:
        """See ``SoftwareToken``."""
        return self._library().exists()

    def needs(self) -> str | None:
        """See ``SoftwareToken``."""
        if not shutil.which("pkcs11-tool"):
            return "opensc"
        if shutil.which("cargo") or self.is_built:
            return None
        return "cargo, and the packages libssl-dev libsqlite3-dev libclang-dev"

    def make(self, state_dir: Path, pin: str) -> dict[str, str]:
        """See ``SoftwareToken``."""
        library = self._library()
        if not self.is_built:
            self._build(library)
        conf = state_dir / "kryoptic.conf"
        arguments = f'slot = 1\ndbtype = "sqlite"\ndbargs = "{state_dir}/kryoptic.sql"\n'
        conf.write_text(f"[[slots]]\n{arguments}")
        environment = {"KRYOPTIC_CONF": str(conf)}
        tool = ["pkcs11-tool", "--module", str(library), "--so-pin", pin]
        _run([*tool, "--init-token", "--slot", "1", "--label", LABEL], environment)
        _run([*tool, "--init-pin", "--login", "--login-type", "so", "--pin", pin], environment)
        return environment | {
            "JOSE_HSM_PKCS11_MODULE": str(library),
            "JOSE_HSM_TOKEN_LABEL": LABEL,
            # While it makes an RSA pair it answers nothing else.
            "JOSE_HSM_CALL_SECONDS": "120",
        }

    def _library(self) -> Path:
        lock = (_KRYOPTIC / "Cargo.lock").read_bytes()
        return _CACHE / f"kryoptic-{self._features}-{sha256(lock).hexdigest()[:16]}.so"

    def _build(self, library: Path) -> None:
        build = _CACHE / f"kryoptic-{self._features}-build"
        arguments = ["--locked", "--release", "--target-dir", str(build)]
        arguments += ["--features", self._features]
        manifest = str(_KRYOPTIC / "Cargo.toml")
        _run(["cargo", "build", "--quiet", "--manifest-path", manifest, *arguments])
        shutil.copy(build / "release" / "libkryoptic_token.so", library.with_suffix(".new"))
        library.with_suffix(".new").replace(library)


TOKENS: Final[Mapping[str, SoftwareToken]] = MappingProxyType(
    {
        "softhsm": SoftHsm(),
        "nss": Nss(),
        "kryoptic": Kryoptic("system", lacks=[*_NEWER_CURVES, *_ML_DSA]),
        "kryoptic-pqc": Kryoptic("pqc", lacks=[imported_wrapped("X25519")]),
    }
)


def _libraries() -> list[Path]:
    return [
        *Path("/usr/lib").glob("*/libsoftokn3.so"),
        *Path("/usr/lib").glob("*/nss/libsoftokn3.so"),
    ]


def _run(command: list[str], environment: Mapping[str, str] = MappingProxyType({})) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
