"""Make the development token: SoftHSM2's files under ``JOSE_HSM_STATE_DIR``.

Does nothing where the environment names another token. Interrupted at any point, it leaves
nothing that the next run would take for a token.
"""

import fcntl
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPLATE = Path("softhsm.conf")


def main() -> None:
    """Leave a usable token behind, or exit with the reason why not."""
    state = Path(os.environ["JOSE_HSM_STATE_DIR"])
    if not _is_ours(state):
        return
    with _turn(state):
        _write_conf(state)
        if not (state / "tokens").exists():
            _make(state)


def _is_ours(state: Path) -> bool:
    return (
        "softhsm" in Path(os.environ["JOSE_HSM_PKCS11_MODULE"]).name
        and "JOSE_HSM_TOKEN_LABEL" in os.environ
        and os.environ["SOFTHSM2_CONF"] == str(state / "softhsm.conf")
    )


@contextmanager
def _turn(state: Path) -> Iterator[None]:
    """Let one process at a time look after ``state``."""
    directory = os.open(state, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _write_conf(state: Path) -> Path:
    """Write the template for ``state``; anew at every start, so that ``state`` may be moved."""
    conf = state / "softhsm.conf"
    _replace(conf, TEMPLATE.read_text().replace("@STATE_DIR@", str(state)))
    return conf


def _make(state: Path) -> None:
    """Initialise a token elsewhere, and move it to its place when it is whole."""
    new = state / "new"
    shutil.rmtree(new, ignore_errors=True)
    (new / "tokens").mkdir(parents=True)
    _initialise(_write_conf(new), pin=_pin(), so_pin=_secret(state / "so-pin"))
    (new / "tokens").rename(state / "tokens")
    shutil.rmtree(new)


def _initialise(conf: Path, *, pin: str, so_pin: str) -> None:
    util = shutil.which("softhsm2-util") or sys.exit("jose-hsm: softhsm2-util is not installed")
    # The PIN shows in the process list for a moment. It opens nothing without the token's files,
    # which only their owner can read.
    command = [
        *(util, "--init-token", "--free", "--module", os.environ["JOSE_HSM_PKCS11_MODULE"]),
        *("--label", os.environ["JOSE_HSM_TOKEN_LABEL"], "--pin", pin, "--so-pin", so_pin),
    ]
    environment = os.environ | {"SOFTHSM2_CONF": str(conf)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"jose-hsm: no development token could be made: {done.stderr.strip()}")


def _pin() -> str:
    return os.environ.get("JOSE_HSM_PIN") or _secret(Path(os.environ["JOSE_HSM_PIN_FILE"]))


def _secret(path: Path) -> str:
    """Return what ``path`` holds, after filling it with a random secret if it does not exist."""
    if not path.exists():
        _replace(path, secrets.token_hex(16) + "\n")
    return path.read_text("utf-8").rstrip("\r\n")


def _replace(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    partial = path.with_name(path.name + ".new")
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.replace(path)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"jose-hsm: no development token: {error}")
