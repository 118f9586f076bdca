"""SoftHSM in a process of its own, across a network: ``p11-kit server`` behind a relay."""

import shutil
import sys
from pathlib import Path
from typing import Final

from app.operator.serving.development import softhsm_module
from scripts.tokens.make import (
    CBC_HMAC,
    COUNTED,
    GCM,
    KEY_MANAGEMENT,
    LABEL,
    ML_DSA,
    ROOT,
    TOLD,
    WRAPPED_IMPORTS,
    start,
)
from scripts.tokens.softhsm import SoftHsm

_CLIENT: Final = "p11-kit-client.so"


class P11Kit(SoftHsm):
    """SoftHSM through the remoting of p11-kit, which forwards few mechanisms, with latency."""

    has_daemons = True
    lacks = frozenset(
        {
            *("EdDSA", "Ed25519", "Ed448", *ML_DSA),
            *(*GCM, *CBC_HMAC, *KEY_MANAGEMENT, WRAPPED_IMPORTS, COUNTED, TOLD),
        }
    )

    def needs(self) -> str | None:
        """See ``SoftwareToken``."""
        has_kit = shutil.which("p11-kit") and _clients()
        return super().needs() or (None if has_kit else "p11-kit p11-kit-modules")

    def make(self, state_dir: Path, pin: str) -> dict[str, str]:
        """See ``SoftwareToken``."""
        settings = super().make(state_dir, pin)
        self.serve(state_dir)
        return settings | {
            "JOSE_HSM_PKCS11_MODULE": str(_clients()[0]),
            "P11_KIT_SERVER_ADDRESS": f"unix:path={_near(state_dir)}",
        }

    def serve(self, state_dir: Path) -> None:
        """See ``SoftwareToken``."""
        near, far = _near(state_dir), state_dir / "far.sock"
        for socket in (near, far):
            socket.unlink(missing_ok=True)
        server = ["p11-kit", "server", "-f", "-n", str(far), "--provider", str(softhsm_module())]
        environment = {"SOFTHSM2_CONF": str(state_dir / "softhsm.conf")}
        start([*server, f"pkcs11:token={LABEL}"], far.exists, environment)
        relay = [sys.executable, "-m", "scripts.tokens.relay", str(near), str(far)]
        start(relay, near.exists, {"PYTHONPATH": str(ROOT)})


def _near(state_dir: Path) -> Path:
    return state_dir / "near.sock"


def _clients() -> list[Path]:
    return [*Path("/usr/lib").glob(f"*/pkcs11/{_CLIENT}")]
