"""``keys create``, ``import``, ``unwrap`` and ``wrapping-key``: keys that come into being."""

from pathlib import Path
from typing import IO, Any, Final

import click

from app.client.algorithm import kind_of
from app.client.command import at_service, data, given, json_anyway, once
from app.client.files import encoded, message
from app.client.service import Service
from app.terminal.options import password_file, together
from app.terminal.output import as_json, print_json, print_members

_labelled: Final = together(
    click.option("--name", help="For people."),
    click.option("--alias", help="What it is to be called, beside its kid."),
    click.option("--tag", "tags", multiple=True, help="A tag; again for each. jwks publishes it."),
    click.option("--expires", help="When it is deactivated, as 2030-01-31T12:00:00Z."),
    click.option("--destroy-after", help="How long it can be restored when destroyed, as P30D."),
    click.option(
        "--storage", type=click.Choice(["token", "wrapped"]), help="Where it is to be kept."
    ),
    click.option("--digest", is_flag=True, help="It is to sign digests that others take, too."),
    once,
)
"""What every new key may be given."""


@click.command()
@click.option("--alg", help="What it does, and nothing else.")
@click.option("--kty", help="Its type; by default that of ALG.")
@click.option("--crv", help="Its curve; by default that of ALG.")
@click.option("--bits", type=int, help="Bits of a new RSA modulus.")
@click.option("--count", type=int, help="How many keys to make.")
@_labelled
@as_json
@at_service
def create(
    service: Service,
    /,
    *,
    alg: str | None,
    kty: str | None,
    crv: str | None,
    once: str | None,
    as_json: bool,
    **members: Any,
) -> None:
    """Have the token generate a key."""
    body = kind_of(service, alg=alg, kty=kty, crv=crv) | given(alg=alg, **members)
    print_members(service.post("keys", body=body, once=once), as_json=as_json)


@click.command("import")
@data
@click.option("--alg", help="What it does, and nothing else.")
@click.option("--use", type=click.Choice(["sig", "enc"]), help="What it is for.")
@click.option("--secret", is_flag=True, help="FILE is the bytes of a secret key.")
@password_file
@_labelled
@as_json
@at_service
def import_(
    service: Service,
    /,
    *,
    file: IO[bytes],
    secret: bool,
    password_file: Path | None,
    once: str | None,
    as_json: bool,
    **members: Any,
) -> None:
    """Import a key: PEM, PKCS#8, PKCS#12, a JWK, or what `keys wrap` has printed.

    The service sees a key that is not wrapped before its token has it.
    """
    key = {"kty": "oct", "k": encoded(file)} if secret else _private_jwk(file, password_file)
    print_members(service.post("keys", body=key | given(**members), once=once), as_json=as_json)


def _private_jwk(file: IO[bytes], password_file: Path | None) -> dict[str, Any]:
    # The libraries that read keys take as long to load as all others together.
    from app.client.jwk_files import private_jwk  # noqa: PLC0415  # see above
    from app.terminal.key_files import Password  # noqa: PLC0415  # see above

    return private_jwk(file.read(), Password(password_file), name=file.name)


@click.command()
@data
@click.option("--key", help="The key, if the header does not name it: its kid or alias.")
@once
@as_json
@at_service
def unwrap(
    service: Service, /, *, file: IO[bytes], key: str | None, once: str | None, as_json: bool
) -> None:
    """Keep the key that a JWE, compact or JSON, has its content encrypted with."""
    body = message(file, "jwe") | given(kid=key)
    print_members(service.post("keys", "unwrap", body=body, once=once), as_json=as_json)


@click.command("wrapping-key")
@json_anyway
@at_service
def wrapping_key(service: Service) -> None:
    """Make a key to wrap another one for: print what `keys wrap --for` reads."""
    print_json(service.post("wrapping-keys", body={}))
