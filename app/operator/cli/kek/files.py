"""The files by which a key-encryption key goes from one token to another."""

import json
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from joserfc.jwk import RSAKey

import hsm
from app.errors import BadRequest
from app.jose import encoding
from app.jwk import load_public, require_sound
from app.terminal.failure import CommandFailed
from hsm import Parcel, replace

_FORMAT: Final = "jose-hsm kek 1"
_MALFORMED: Final = (ValueError, RecursionError, KeyError, TypeError, AttributeError, BadRequest)


def read_recipient(file: Path) -> dict[str, str]:
    """Return the key to wrap for; raise ``CommandFailed`` if ``file`` holds none."""
    try:
        jwk: dict[str, str] = json.loads(file.read_bytes())
        if jwk["alg"] not in hsm.WRAPPING_ALGS or jwk["kty"] != "RSA":
            raise ValueError("no key to wrap for")  # as all that is wrong with it
        require_sound(load_public(jwk))
    except _MALFORMED as error:
        raise CommandFailed(f"{file} is not what `kek import --prepare` writes") from error
    return jwk


def read_parcel(file: Path) -> Parcel:
    """Return a wrapped key-encryption key; raise ``CommandFailed`` if ``file`` holds none."""
    try:
        members = json.loads(file.read_bytes())[_FORMAT]
        octets = {name: encoding.decode(members[name]) for name in ("encrypting", "sealing")}
        return Parcel(kek=UUID(members["kek"]), **octets)
    except _MALFORMED as error:
        raise CommandFailed(f"{file} is not what `kek export` writes") from error


def write_parcel(file: Path, parcel: Parcel) -> None:
    """Write what ``read_parcel`` reads; raise ``CommandFailed`` if that cannot be."""
    members = {"encrypting": parcel.encrypting, "sealing": parcel.sealing}
    octets = {name: encoding.encode(value) for name, value in members.items()}
    write(file, {_FORMAT: {"kek": str(parcel.kek)} | octets})


def write(file: Path, members: dict[str, Any]) -> None:
    """Write JSON; raise ``CommandFailed`` if that cannot be."""
    try:
        replace(file, (json.dumps(members, indent=2) + "\n").encode("ascii"), synced=True)
    except OSError as error:
        raise CommandFailed(f"{file} cannot be written: {error.strerror}") from error


def thumbprint(jwk: dict[str, str]) -> str:
    """Return the thumbprint of an RSA key (RFC 7638)."""
    return RSAKey.import_key({**jwk}).thumbprint()
