"""A token for development: SoftHSM2's files in a directory, where nothing names another token."""

import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Final

import hsm

LABEL: Final = "jose-hsm"
_TEMPLATE: Final = Path(__file__).parents[2] / "softhsm.conf"
_MODULES: Final = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/*/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)


class NoDevelopmentToken(Exception):
    """No token for development can be made; the text says why."""


def softhsm_module() -> Path:
    """Return where SoftHSM2's library is; raise ``NoDevelopmentToken`` if it is not installed."""
    found = next((path for pattern in _MODULES for path in sorted(glob(pattern))), None)  # noqa: PTH207  # of the root
    if found is None:
        raise NoDevelopmentToken("SoftHSM2 is not installed (on Debian: apt install softhsm2)")
    return Path(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class DevelopmentToken:
    """The token of ``state_dir``, where the settings ``given`` name no other."""

    state_dir: Path
    given: Mapping[str, str]

    def settings(self) -> Mapping[str, str]:
        """Return what is not given; raise ``NoDevelopmentToken`` if there is no library."""
        return dict(self._missing())

    def _missing(self) -> Iterator[tuple[str, str]]:
        yield "JOSE_HSM_STATE_DIR", str(self.state_dir)
        if not self._names("PKCS11_MODULE"):
            yield "JOSE_HSM_PKCS11_MODULE", str(softhsm_module())
        if not self._names("PIN", "PIN_FILE"):
            yield "JOSE_HSM_PIN_FILE", str(self.state_dir / "pin")
        if not self._names("TOKEN_LABEL", "TOKEN_SERIAL", "TOKEN_URI"):
            yield "JOSE_HSM_TOKEN_LABEL", LABEL
            # It has a configuration of its own, whatever another one says.
            yield "SOFTHSM2_CONF", str(self._conf)
        elif not self.given.get("SOFTHSM2_CONF"):
            yield "SOFTHSM2_CONF", str(self._conf)

    def _names(self, *settings: str) -> bool:
        return any(self.given.get(f"JOSE_HSM_{setting}") for setting in settings)

    @property
    def _conf(self) -> Path:
        return self.state_dir / "softhsm.conf"

    def make(self, settings: Mapping[str, str]) -> None:
        """Leave a token behind that can be used, unless ``settings`` name another one.

        Interrupted at any point, it leaves nothing that the next run would take for a token.
        Raises ``NoDevelopmentToken``.
        """
        try:
            if self._is_meant(settings):
                with hsm.file_lock(self.state_dir / "development.lock"):
                    self._write_conf(self.state_dir)
                    if not (self.state_dir / "tokens").exists():
                        self._make(settings)
        except OSError as error:
            raise NoDevelopmentToken(f"no development token: {error}") from error

    def _is_meant(self, settings: Mapping[str, str]) -> bool:
        return (
            "softhsm" in Path(settings["JOSE_HSM_PKCS11_MODULE"]).name
            and bool(settings.get("JOSE_HSM_TOKEN_LABEL"))
            and settings["SOFTHSM2_CONF"] == str(self._conf)
        )

    @staticmethod
    def _write_conf(directory: Path) -> Path:
        """Write the template, anew at every start, so that the directory may be moved."""
        conf = directory / "softhsm.conf"
        text = _TEMPLATE.read_text("utf-8").replace("@STATE_DIR@", str(directory))
        hsm.replace(conf, text.encode(), synced=False)
        return conf

    def _make(self, settings: Mapping[str, str]) -> None:
        """Initialise a token elsewhere, and move it to its place when it is whole."""
        new = self.state_dir / "new"
        shutil.rmtree(new, ignore_errors=True)
        (new / "tokens").mkdir(parents=True)
        _initialise(settings, self._write_conf(new), so_pin=_secret(self.state_dir / "so-pin"))
        (new / "tokens").rename(self.state_dir / "tokens")
        shutil.rmtree(new)


def _initialise(settings: Mapping[str, str], conf: Path, *, so_pin: str) -> None:
    program = shutil.which("softhsm2-util")
    if program is None:
        raise NoDevelopmentToken("softhsm2-util is not installed (on Debian: apt install softhsm2)")
    pin = settings.get("JOSE_HSM_PIN") or _secret(Path(settings["JOSE_HSM_PIN_FILE"]))
    # The PIN shows in the process list for a moment. It opens nothing without the token's files,
    # which only their owner can read.
    command = [
        *(program, "--init-token", "--free", "--module", settings["JOSE_HSM_PKCS11_MODULE"]),
        *("--label", settings["JOSE_HSM_TOKEN_LABEL"], "--pin", pin, "--so-pin", so_pin),
    ]
    environment = {**settings, "SOFTHSM2_CONF": str(conf)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  # ours
    if done.returncode:
        raise NoDevelopmentToken(f"no development token could be made: {done.stderr.strip()}")


def _secret(path: Path) -> str:
    """Return what ``path`` holds, after filling it with a random secret if it does not exist."""
    if not path.exists():
        hsm.replace(path, f"{secrets.token_hex(16)}\n".encode(), synced=True)
    return path.read_text("utf-8").rstrip("\r\n")
