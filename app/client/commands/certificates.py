"""``certificates``: asked for here, given by an authority, kept with the key."""

from typing import IO, Final

import click

from app.client.command import at_service, data, given, in_keyset, key, out, resource_of, write
from app.client.service import Service
from app.terminal.failure import CommandFailed
from app.terminal.output import as_json, print_members

_PRIVATE: Final = "PRIVATE KEY-----"


@click.group()
def certificates() -> None:
    """Ask for the certificate of a key, and keep it."""


def _part(_context: click.Context, _option: click.Parameter, parts: tuple[str, ...]) -> object:
    """Return the parts of a subject as an object, in their order."""
    pairs = [part.partition("=") for part in parts]
    if not all(equals for _name, equals, _text in pairs):
        raise click.BadParameter("must be like CN=signer.example")
    subject = {name: text for name, _equals, text in pairs}
    if len(subject) < len(parts):
        raise click.BadParameter("must have each part once")
    return subject


@certificates.command()
@key
@click.option("--subject", multiple=True, callback=_part, help="A part, as CN=signer; or more.")
@click.option("--dns", multiple=True, help="The name of a host; again for each.")
@click.option("--alg", help="What to sign the request with.")
@in_keyset
@out
@as_json
@at_service
def request(
    service: Service,
    /,
    *,
    key: str,
    subject: dict[str, str],
    dns: tuple[str, ...],
    alg: str | None,
    in_keyset: bool,
    out: IO[bytes],
    as_json: bool,
) -> None:
    """Print a request for a certificate (PKCS#10) in PEM, signed by the key."""
    body = {"subject": subject} | given(dns=dns, alg=alg)
    answer = service.post(resource_of(in_keyset=in_keyset), key, "csr", body=body)
    write(answer, "csr", out, as_json=as_json)


@certificates.command()
@key
@data
@as_json
@at_service
def put(service: Service, /, *, key: str, file: IO[bytes], as_json: bool) -> None:
    """Give a key its certificate in PEM, with those of its issuers behind it."""
    try:
        chain = file.read().decode("ascii")
    except UnicodeDecodeError:
        raise CommandFailed(f"{file.name} is no certificate in PEM") from None
    if _PRIVATE in chain:
        raise CommandFailed(f"{file.name} holds a private key, which is not sent")
    print_members(service.put("keys", key, "certificate", body={"chain": chain}), as_json=as_json)


@certificates.command()
@key
@as_json
@at_service
def remove(service: Service, /, *, key: str, as_json: bool) -> None:
    """Take a key's certificate away."""
    service.delete("keys", key, "certificate")
    print_members({"key": key, "certificate": None}, as_json=as_json)
