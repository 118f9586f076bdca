"""SoftHSM."""

import shutil
from pathlib import Path

from app.operator.serving.development import softhsm_module
from scripts.tokens.make import (
    LABEL,
    ML_DSA,
    OAEP_BY_ITSELF,
    ROOT,
    SoftwareToken,
    imported_wrapped,
    run,
)


class SoftHsm(SoftwareToken):
    """SoftHSM 2, as Debian and Ubuntu have it."""

    lacks = frozenset(
        {OAEP_BY_ITSELF, *ML_DSA, *map(imported_wrapped, ("Ed25519", "Ed448", "X25519"))}
    )

    def needs(self) -> str | None:
        """See ``SoftwareToken``."""
        return None if shutil.which("softhsm2-util") else "softhsm2"

    def make(self, state_dir: Path, pin: str) -> dict[str, str]:
        """See ``SoftwareToken``."""
        (state_dir / "tokens").mkdir()
        conf = state_dir / "softhsm.conf"
        conf.write_text((ROOT / "softhsm.conf").read_text().replace("@STATE_DIR@", str(state_dir)))
        environment = {"SOFTHSM2_CONF": str(conf)}
        command = ["softhsm2-util", "--init-token", "--free", "--label", LABEL]
        run([*command, "--pin", pin, "--so-pin", pin], environment)
        return environment | {
            "JOSE_HSM_PKCS11_MODULE": str(softhsm_module()),
            "JOSE_HSM_TOKEN_LABEL": LABEL,
        }
