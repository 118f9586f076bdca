"""The software token of Mozilla's NSS."""

import shutil
from pathlib import Path

from scripts.tokens.make import (
    ANY_SIZE,
    ML_DSA,
    NEWER_CURVES,
    SoftwareToken,
    imported_wrapped,
    run,
)


class Nss(SoftwareToken):
    """The software token of Mozilla's NSS, as Debian and Ubuntu have it."""

    lacks = frozenset(
        {
            *("CKA_ALLOWED_MECHANISMS", "CKA_COPYABLE", "CKA_LOCAL", "CKA_DERIVE"),
            *("ES256K", *NEWER_CURVES, *ML_DSA, ANY_SIZE),
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
        run(["certutil", "-N", "-d", f"sql:{database}", "-f", str(state_dir / "pin")])
        parameters = f"configdir='sql:{database}' certPrefix='' keyPrefix='' secmod='secmod.db'"
        return {
            "JOSE_HSM_PKCS11_MODULE": str(_libraries()[0]),
            "JOSE_HSM_PKCS11_PARAMETERS": f"{parameters} flags=",
            "JOSE_HSM_TOKEN_LABEL": "NSS Certificate DB",
        }


def _libraries() -> list[Path]:
    return [
        *Path("/usr/lib").glob("*/libsoftokn3.so"),
        *Path("/usr/lib").glob("*/nss/libsoftokn3.so"),
    ]
