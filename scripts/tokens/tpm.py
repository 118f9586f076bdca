"""A TPM 2.0 in software, behind tpm2-pkcs11.

It has three daemons: the TPM itself, the manager of its few places, and the bus on which that is
asked. All listen on sockets beside the files, so there may be any number of them.
"""

import secrets
import shutil
from pathlib import Path
from typing import Final

from scripts.tokens.make import (
    CBC_HMAC,
    GCM,
    IMPORTS,
    KEY_MANAGEMENT,
    LABEL,
    ML_DSA,
    NOT_DECRYPTING,
    SENSITIVE,
    SEVERAL,
    UNCHANGED,
    UNUSED,
    WRAPPED_IMPORTS,
    SoftwareToken,
    digests_signed_by,
    run,
    start,
)

_PACKAGES: Final = {
    "swtpm": "swtpm",
    "dbus-daemon": "dbus-daemon",
    "dbus-send": "dbus-bin",
    "tpm2-abrmd": "tpm2-abrmd",
    "tpm2_ptool": "libtpm2-pkcs11-tools",
}
_MODULE: Final = "libtpm2_pkcs11.so.1"
_LIBRARIES: Final = {
    _MODULE: "libtpm2-pkcs11-1",
    "libtss2-tcti-swtpm.so.0": "libtss2-tcti-swtpm0",
    "libtss2-tcti-tabrmd.so.0": "libtss2-tcti-tabrmd0",
}
_MANAGER: Final = "com.intel.tss2.Tabrmd"
_ON_THE_BUS: Final = "tabrmd:bus_type=session"
_MOST_OBJECTS: Final = 100  # the library lets go of none when it refuses a pair


class Tpm(SoftwareToken):
    """swtpm and tpm2-pkcs11, as Debian and Ubuntu have them."""

    has_daemons = True
    most_used_keys = 20  # the library keeps them loaded; it was seen to refuse the 25th
    lacks = frozenset(
        {
            *("ES512", "ES256K", "EdDSA", "Ed25519", "Ed448", *ML_DSA),
            *("HS256", "HS384", "HS512", *GCM, *CBC_HMAC, *KEY_MANAGEMENT, WRAPPED_IMPORTS),
            *(SEVERAL, IMPORTS, NOT_DECRYPTING, UNCHANGED, SENSITIVE, UNUSED),
            *map(digests_signed_by, ("RS256", "RS384", "RS512")),
        }
    )

    def needs(self) -> str | None:
        """See ``SoftwareToken``."""
        missing = [name for command, name in _PACKAGES.items() if not shutil.which(command)]
        missing += [name for library, name in _LIBRARIES.items() if not _paths(library)]
        return " ".join(missing) or None

    def make(self, state_dir: Path, pin: str) -> dict[str, str]:
        """See ``SoftwareToken``."""
        for directory in (state_dir / "tpm", state_dir / "store"):
            directory.mkdir()
        self.serve(state_dir)
        environment = _environment(state_dir)
        store = ["--path", str(state_dir / "store")]
        run(["tpm2_ptool", "init", *store], environment)
        pins = ["--sopin", pin, "--userpin", pin]
        label = f"{LABEL}-{secrets.token_hex(4)}"  # all serial numbers are zeros
        run(["tpm2_ptool", "addtoken", "--pid", "1", "--label", label, *pins, *store], environment)
        return environment | {
            "JOSE_HSM_PKCS11_MODULE": str(_paths(_MODULE)[0]),
            "JOSE_HSM_TOKEN_LABEL": label,
        }

    def serve(self, state_dir: Path) -> None:
        """See ``SoftwareToken``."""
        tpm, control, bus = (state_dir / name for name in ("tpm.sock", "tpm.sock.ctrl", "bus.sock"))
        for socket in (tpm, control, bus):
            socket.unlink(missing_ok=True)
        server = ["--server", f"type=unixio,path={tpm}", "--ctrl", f"type=unixio,path={control}"]
        state = ["--tpmstate", f"dir={state_dir / 'tpm'}", "--flags", "not-need-init,startup-clear"]
        start(["swtpm", "socket", "--tpm2", *state, *server], control.exists)
        address = [f"--address={_address(state_dir)}"]
        start(["dbus-daemon", "--session", "--nofork", "--nopidfile", *address], bus.exists)
        _start_manager(tpm, _environment(state_dir))


def _start_manager(tpm: Path, environment: dict[str, str]) -> None:
    question = ["dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.DBus"]
    question += ["/", "org.freedesktop.DBus.NameHasOwner", f"string:{_MANAGER}"]
    start(
        [
            *("tpm2-abrmd", "--session", "--allow-root", f"--tcti=swtpm:path={tpm}"),
            f"--max-transients={_MOST_OBJECTS}",
        ],
        lambda: "boolean true" in run(question, environment),
        environment,
    )


def _environment(state_dir: Path) -> dict[str, str]:
    return {
        "DBUS_SESSION_BUS_ADDRESS": _address(state_dir),
        "TPM2_PKCS11_TCTI": _ON_THE_BUS,
        "TPM2TOOLS_TCTI": _ON_THE_BUS,
        "TPM2_PKCS11_STORE": str(state_dir / "store"),
    }


def _address(state_dir: Path) -> str:
    return f"unix:path={state_dir / 'bus.sock'}"


def _paths(library: str) -> list[Path]:
    return [*Path("/usr/lib").glob(f"*/{library}")]
