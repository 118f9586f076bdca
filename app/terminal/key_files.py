"""Private keys of files, in PEM, PKCS#8 or PKCS#12, with a password or without."""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_pem_private_key,
    pkcs12,
)

from app.terminal.failure import CommandFailed

Load = Callable[[bytes, bytes | None], Any]
"""Reads a private key; raises ``ValueError`` for what is none, ``TypeError`` for a password."""

_PEM: Final = b"-----BEGIN "  # text may stand before it, as openssl pkcs12 writes it (RFC 7468 §2)
_SEQUENCE: Final = b"\x30"  # with it every file in DER begins


class Password:
    """The password of a file, asked for when it is needed, and once."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    @cached_property
    def octets(self) -> bytes:
        """The password; raises ``CommandFailed`` where nobody is there to ask."""
        if self._file:
            return self._file.read_bytes().rstrip(b"\r\n")
        if not sys.stdin.isatty():
            raise CommandFailed("the file has a password: add --password-file")
        return str(click.prompt("Password", hide_input=True, err=True)).encode()


def load_private(octets: bytes, password: Password, *, name: str) -> Any:
    """Return the private key of the file ``name``; raise ``CommandFailed`` if it is none."""
    loads = (load_pem_private_key,) if _PEM in octets else _BINARY
    for load in loads:
        with suppress(ValueError, TypeError, UnsupportedAlgorithm):  # empty password: TypeError
            return _loaded(load, octets, password)
    raise CommandFailed(
        f"{name} is no private key in PEM, PKCS#8 or PKCS#12, or has another password"
    )


def _loaded(load: Load, octets: bytes, password: Password) -> Any:
    try:
        return load(octets, None)
    except TypeError:
        return load(octets, password.octets)


def _load_pkcs12(octets: bytes, password: bytes | None) -> Any:
    """Return the private key; where there is no password, an empty one is one, too."""
    try:
        return pkcs12.load_key_and_certificates(octets, password)[0]
    except ValueError:
        if password is None and octets.startswith(_SEQUENCE):
            raise TypeError from None
        raise


_BINARY: Final[tuple[Load, ...]] = (load_der_private_key, _load_pkcs12)
