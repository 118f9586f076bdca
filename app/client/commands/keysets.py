"""``keysets``: names whose keys follow one another."""

from typing import Any

import click

from app.client.algorithm import kind_of
from app.client.command import at_service, given
from app.client.service import Service
from app.terminal.output import as_json, print_members
from app.terminal.questions import ask
from app.terminal.tables import print_keyset, print_keysets

_name = click.argument("name")


@click.group(epilog="Beside the service there are others: leave the URL out.")
def keysets() -> None:
    """Make, list, show, rotate and destroy key sets."""


@keysets.command("list")
@as_json
@at_service
def list_(service: Service, /, *, as_json: bool) -> None:
    """List the key sets that you may read."""
    print_keysets(list(service.listed("keysets")), as_json=as_json)


@keysets.command()
@_name
@as_json
@at_service
def show(service: Service, /, *, name: str, as_json: bool) -> None:
    """Show everything that is known of a key set, and its versions."""
    print_keyset(service.get("keysets", name), as_json=as_json)


@keysets.command()
@_name
@click.option("--alg", required=True, help="What its keys do, and nothing else.")
@click.option("--kty", help="Their type; by default that of ALG.")
@click.option("--crv", help="Their curve; by default that of ALG.")
@click.option("--bits", type=int, help="Bits of an RSA modulus.")
@click.option("--digest", is_flag=True, help="They are to sign digests that others take, too.")
@click.option("--tag", "tags", multiple=True, help="A tag; again for each.")
@click.option("--destroy-after", help="How long a key can be restored when destroyed, as P30D.")
@click.option("--every", help="How long a version is current, as P90D.")
@click.option("--publish-ahead", help="How long it is published before, as P1D.")
@click.option("--retain", help="How long it is published afterwards, as P30D.")
@as_json
@at_service
def put(
    service: Service,
    /,
    *,
    name: str,
    alg: str,
    kty: str | None,
    crv: str | None,
    every: str | None,
    publish_ahead: str | None,
    retain: str | None,
    as_json: bool,
    **members: Any,
) -> None:
    """Make a key set, or change when its versions follow one another.

    Without --every, --publish-ahead and --retain that is on request only.
    """
    kind = kind_of(service, alg=alg, kty=kty, crv=crv)
    rotation = given(every=every, publish_ahead=publish_ahead, retain=retain)
    body = kind | {"alg": alg, "rotation": rotation or None} | given(**members)
    print_keyset(service.put("keysets", name, body=body), as_json=as_json)


@keysets.command()
@_name
@click.option("--at", help="When, as 2030-01-31T12:00:00Z; by default as soon as it may.")
@as_json
@at_service
def rotate(service: Service, /, *, name: str, at: str | None, as_json: bool) -> None:
    """Have the service rotate a key set; its next version is published for a time before."""
    print_keyset(service.post("keysets", name, "rotate", body=given(at=at)), as_json=as_json)


@keysets.command()
@_name
@click.argument("kid", help="Of the version.")
@as_json
@at_service
def revoke(service: Service, /, *, name: str, kid: str, as_json: bool) -> None:
    """Say, for ever, that others may have a version; another one takes over."""
    print_keyset(service.post("keysets", name, "revoke", body={"kid": kid}), as_json=as_json)


@keysets.command()
@_name
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@at_service
def destroy(service: Service, /, *, name: str, yes: bool, as_json: bool) -> None:
    """Destroy a key set with all its versions."""
    if not yes:
        ask(f"Destroy {name} with all its versions?")
    service.delete("keysets", name)
    print_members({"keyset": name, "deleted": True}, as_json=as_json)
