"""Kryoptic, which has to be compiled."""

import os
import shutil
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

from scripts.tokens.make import ANY_SIZE, HISTORY, LABEL, ROOT, SoftwareToken, run

_KRYOPTIC: Final = ROOT / "scripts" / "kryoptic"
_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jose-hsm"


class Kryoptic(SoftwareToken):
    """Kryoptic, built from crates.io once for each Cargo.lock.

    ``features`` are those of the crate that say on which OpenSSL: that of the system, here 3.0, or
    a newer one that is built with it.
    """

    def __init__(self, features: str, *, lacks: Iterable[str] = ()) -> None:
        self._features = features
        self.lacks = frozenset({"ES256K", ANY_SIZE, *HISTORY, *lacks})

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
        run([*tool, "--init-token", "--slot", "1", "--label", LABEL], environment)
        run([*tool, "--init-pin", "--login", "--login-type", "so", "--pin", pin], environment)
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
        run(["cargo", "build", "--quiet", "--manifest-path", manifest, *arguments])
        shutil.copy(build / "release" / "libkryoptic_token.so", library.with_suffix(".new"))
        library.with_suffix(".new").replace(library)
