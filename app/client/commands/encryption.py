"""``encrypt``, ``decrypt`` and ``rewrap``."""

import json
from typing import IO, Any

import click

from app.client.algorithm import ENC, encryption_of
from app.client.command import (
    at_service,
    data,
    given,
    header_members,
    in_keyset,
    key,
    named,
    out,
    write_line,
)
from app.client.files import encoded, message
from app.client.service import Service
from app.jose import encoding
from app.terminal.failure import CommandFailed
from app.terminal.output import as_json, written


@click.command()
@key
@data
@click.option("--alg", help="How the content encryption key is encrypted; by default by the key.")
@click.option("--enc", help=f"How the content is encrypted; by default by the key, or {ENC}.")
@in_keyset
@click.option(
    "--key-file", is_flag=True, help="KEY is a file: a public key of somebody's, JWK or PEM."
)
@click.option("--aad", type=click.File("rb"), help="Data that is protected and not encrypted.")
@click.option("--flattened", is_flag=True, help="Print a JSON object; so it is with --aad.")
@header_members
@out
@as_json
@at_service
def encrypt(
    service: Service,
    /,
    *,
    key: str,
    file: IO[bytes],
    alg: str | None,
    enc: str | None,
    in_keyset: bool,
    key_file: bool,
    aad: IO[bytes] | None,
    flattened: bool,
    header: dict[str, Any],
    out: IO[bytes],
    as_json: bool,
) -> None:
    """Encrypt data: print a compact JWE."""
    asked = given(alg=alg, enc=enc)
    if key_file:
        recipient = _recipient(key, asked)
    else:
        known = {} if alg else encryption_of(service, key, in_keyset=in_keyset)
        recipient = named(key, in_keyset=in_keyset) | {"enc": ENC} | known | asked
    form = given(aad=encoded(aad)) if aad else {"serialization": None if flattened else "compact"}
    body = recipient | header | form | {"data": encoded(file)}
    answer = service.post("encrypt", body=body)
    _write_jwe(answer.get("jwe", answer), answer, out, as_json=as_json)


def _recipient(path: str, asked: dict[str, str]) -> dict[str, Any]:
    # The libraries that read keys take as long to load as all others together.
    from app.client.jwk_files import public_jwk  # noqa: PLC0415  # see above

    with click.open_file(path, "rb") as file:
        jwk = public_jwk(file.read(), name=path)
    if "alg" not in asked and not jwk.get("alg"):
        raise CommandFailed("the key does more than one algorithm: add --alg")
    return {"jwk": jwk, "alg": jwk.get("alg"), "enc": ENC} | asked


@click.command()
@data
@click.option("--key", help="The key, if the header does not name it: its kid or alias.")
@out
@as_json
@at_service
def decrypt(
    service: Service, /, *, file: IO[bytes], key: str | None, out: IO[bytes], as_json: bool
) -> None:
    """Decrypt a JWE: print the data as it is.

    It is compact, or JSON in any form.
    """
    answer = service.post("decrypt", body=message(file, "jwe") | given(kid=key))
    if as_json:
        write_line(written(answer), out)
    else:
        out.write(encoding.decode(answer["data"]))


@click.command()
@data
@click.option("--to", required=True, help="The key that it is to be for: its kid or alias.")
@click.option("--alg", help="How that encrypts the content encryption key; by default by the key.")
@click.option("--key", help="The key that it is for, if the header does not name it.")
@out
@as_json
@at_service
def rewrap(
    service: Service,
    /,
    *,
    file: IO[bytes],
    to: str,
    alg: str | None,
    key: str | None,
    out: IO[bytes],
    as_json: bool,
) -> None:
    """Make a JWE one for another key.

    It is printed in the form in which it came; nobody is told the data.
    """
    jwe = message(file, "jwe")
    target = {"kid": to, "alg": alg or encryption_of(service, to, in_keyset=False)["alg"]}
    answer = service.post("rewrap", body={"jwe": jwe.get("jwe", jwe), "to": target, "kid": key})
    _write_jwe(answer["jwe"], answer, out, as_json=as_json)


def _write_jwe(jwe: Any, answer: Any, out: IO[bytes], *, as_json: bool) -> None:
    """Write a compact JWE as it is, and any other as JSON in one line."""
    in_one_line = jwe if isinstance(jwe, str) else json.dumps(jwe)
    write_line(written(answer) if as_json else in_one_line, out)
