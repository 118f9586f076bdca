"""``sign``, ``sign-raw``, ``verify`` and ``mac``."""

from typing import IO, Any

import click

from app.client.algorithm import alg_of
from app.client.command import (
    NO,
    alg,
    at_service,
    data,
    given,
    header_members,
    in_keyset,
    key,
    named,
    out,
    tell,
    write,
)
from app.client.files import encoded, message
from app.client.payload import payload_of
from app.client.service import Service
from app.terminal.output import as_json


@click.command()
@key
@data
@alg
@in_keyset
@click.option("--detached", is_flag=True, help="Leave the data out of the JWS.")
@header_members
@out
@as_json
@at_service
def sign(
    service: Service,
    /,
    *,
    key: str,
    file: IO[bytes],
    alg: str | None,
    in_keyset: bool,
    detached: bool,
    header: dict[str, Any],
    out: IO[bytes],
    as_json: bool,
) -> None:
    """Sign data: print a compact JWS."""
    body = _named(service, key, alg, in_keyset=in_keyset) | header | {"data": encoded(file)}
    answer = service.post("sign", body=body | ({} if detached else {"serialization": "compact"}))
    if detached and not as_json:
        answer = {"jws": f"{answer['protected']}..{answer['signature']}"}
    write(answer, "jws", out, as_json=as_json)


@click.command("sign-raw")
@key
@data
@alg
@click.option("--digest", is_flag=True, help="FILE is a digest of what is to be signed.")
@out
@as_json
@at_service
def sign_raw(
    service: Service,
    /,
    *,
    key: str,
    file: IO[bytes],
    alg: str | None,
    digest: bool,
    out: IO[bytes],
    as_json: bool,
) -> None:
    """Sign data, or a digest of it, without a header.

    The signature is printed in base64url, and that of ECDSA as JWS has it: R and S, no DER.
    """
    body = {
        "alg": alg or alg_of(service, key, in_keyset=False),
        "digest" if digest else "data": encoded(file),
    }
    answer = service.post("keys", key, "sign", body=body)
    write(answer, "signature", out, as_json=as_json)


@click.command()
@data
@click.option("--data", type=click.File("rb"), help="What is signed, if that is not in the JWS.")
@click.option("--key", help="The key, if the header does not name it: its kid or alias.")
@click.option(
    "--public-key",
    type=click.File("rb"),
    help="A key that counts in place of any of the service: JWK, or PEM of it or a certificate.",
)
@click.option("--out", type=click.File("wb"), help="Where to write the data, if it is valid.")
@as_json
@at_service
def verify(
    service: Service,
    /,
    *,
    file: IO[bytes],
    data: IO[bytes] | None,
    key: str | None,
    public_key: IO[bytes] | None,
    out: IO[bytes] | None,
    as_json: bool,
) -> int:
    """Tell whether a JWS is valid; the status is 1 if not.

    It is compact, or JSON in any form, and without its data if that is beside it.
    With --out - the data alone is printed, and nothing if it is not valid.
    """
    jws = message(file, "jws") | given(data=encoded(data) if data else None)
    answer = service.post("verify", body=jws | given(kid=key, jwk=_jwk(public_key)))
    if out is None:
        return tell(valid=answer["valid"], answer=answer, as_json=as_json)
    if answer["valid"]:
        out.write(payload_of(jws))
        return 0
    click.echo("jose-hsm: not valid", err=True)
    return NO


@click.command()
@key
@data
@alg
@in_keyset
@click.option(
    "--check", metavar="MAC", help="Compare it with this; the status is 1 if it is another."
)
@click.option("--compact", is_flag=True, help="Print a whole JWS, with the data in it.")
@header_members
@out
@as_json
@at_service
def mac(
    service: Service,
    /,
    *,
    key: str,
    file: IO[bytes],
    alg: str | None,
    in_keyset: bool,
    check: str | None,
    compact: bool,
    header: dict[str, Any],
    out: IO[bytes],
    as_json: bool,
) -> int:
    """Compute the MAC of data, or compare it.

    It is printed in base64url.
    """
    body = _named(service, key, alg, in_keyset=in_keyset) | header | {"data": encoded(file)}
    answer = service.post(
        "mac", body=body | given(mac=check, serialization="compact" if compact else None)
    )
    if check is not None:
        return tell(valid=answer["valid"], answer=answer, as_json=as_json)
    write(answer, "jws" if compact else "mac", out, as_json=as_json)
    return 0


def _named(service: Service, key: str, alg: str | None, *, in_keyset: bool) -> dict[str, Any]:
    """Return how a request names its key and ``alg``."""
    alg = alg or alg_of(service, key, in_keyset=in_keyset)
    return named(key, in_keyset=in_keyset) | {"alg": alg}


def _jwk(file: IO[bytes] | None) -> dict[str, Any] | None:
    if file is None:
        return None
    # The libraries that read keys take as long to load as all others together.
    from app.client.jwk_files import public_jwk  # noqa: PLC0415  # see above

    return public_jwk(file.read(), name=file.name)
