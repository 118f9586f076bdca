"""``jose-hsm keys wrap``: for whoever has a key that only a token is to see. It needs no token."""

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

import hsm
from app.errors import BadRequest
from app.instants import is_to_come
from app.jose import encoding
from app.jwk import load_public, require_sound, write_public
from app.schemas.wrapped import ENC
from app.terminal.failure import CommandFailed
from app.terminal.key_files import Password, load_private
from app.terminal.options import password_file
from app.terminal.output import print_json

_ADVICE: Final = """\
Send this as the body of POST /v1/crypto/keys, whoever may see it: only the token can unwrap it.
{file} still holds the key itself. The token gives no key out: keep a copy offline if there has to
be one. When the import is answered and the key has been tried, destroy all others, this file too,
as by `shred -u` where the file system overwrites in place.
"""


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--for",
    "wrapping",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    metavar="WRAPPING.json",
    help="What POST /wrapping-keys has answered.",
)
@click.option("--alg", help="What the key is for; of a secret key, whose bytes are the file.")
@password_file
def wrap(file: Path, wrapping: Path, alg: str | None, password_file: Path | None) -> int:
    """Wrap a key in PEM, PKCS#8 or PKCS#12 for a token, to be imported."""
    target = _target(wrapping)
    key = _key(file, alg, Password(password_file))
    row = hsm.KEY_MANAGEMENTS[target["alg"]]
    to: Any = load_public(target["jwk"])
    ciphertext = encoding.encode(hsm.wrap_key(to, row, key))
    wrapped = {"kid": target["kid"], "alg": target["alg"], "enc": ENC, "ciphertext": ciphertext}
    print_json(_described(key, alg) | {"wrapped": wrapped})
    print(_ADVICE.format(file=file), end="", file=sys.stderr)
    return 0


def _target(file: Path) -> Mapping[str, Any]:
    """Return the wrapping key; raise ``CommandFailed`` if ``file`` holds none, or an old one."""
    try:
        target: Mapping[str, Any] = json.loads(file.read_bytes())
        is_rsa = target["alg"] in hsm.WRAPPING_ALGS and target["jwk"]["kty"] == "RSA"
        is_late = not is_to_come(datetime.fromisoformat(target["expires"]))
        require_sound(load_public(target["jwk"]))
    except (ValueError, RecursionError, KeyError, TypeError, BadRequest) as error:
        raise CommandFailed(f"{file} is no answer of POST /wrapping-keys") from error
    if not is_rsa:
        raise CommandFailed(f"{file} is no answer of POST /wrapping-keys")
    if is_late:
        raise CommandFailed(f"{file} has expired: ask for another wrapping key")
    return target


def _key(file: Path, alg: str | None, password: Password) -> Any:
    """Return the private key of ``file``, or the bytes of a secret key."""
    octets = file.read_bytes()
    if not octets:
        raise CommandFailed(f"{file} is empty")
    if alg and hsm.algorithms_by_crv("oct", alg):
        return octets
    return _supported(load_private(octets, password, name=str(file)))


def _supported(key: Any) -> Any:
    if not isinstance(key, hsm.PrivateKey):
        raise CommandFailed("the key is of no type that the service has")
    return key


def _public_members(key: Any) -> dict[str, Any]:
    try:
        return write_public(key.public_key())
    except KeyError:  # it is on a curve that JOSE has no name for
        raise CommandFailed("the key is on no curve that the service has") from None


def _described(key: Any, alg: str | None) -> dict[str, Any]:
    """Return what the request says of the key; raise ``CommandFailed`` if ``alg`` is not its."""
    members = {"kty": "oct"} if isinstance(key, bytes) else _public_members(key)
    if members.get("crv") not in hsm.algorithms_by_crv(members["kty"], alg):
        raise CommandFailed(f"a key of this kind is not for {alg}")
    return members | ({"alg": alg} if alg else {})
