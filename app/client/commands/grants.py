"""``grants``: who may do what with a key, or with a key set."""

import click

from app.client.command import at_service, key, resource_of
from app.client.service import Service
from app.rights import GRANTABLE
from app.terminal.output import as_json, cell, print_json, print_members, print_table

_of_set = click.option(
    "--keyset", "in_keyset", is_flag=True, help="KEY is a key set: all its versions."
)
_principal = click.argument("principal", help="As token:NAME, jwt:SUBJECT, mtls:dns:NAME or '*'.")


@click.group()
def grants() -> None:
    """List, give and take what others may do with a key."""


@grants.command("list")
@key
@_of_set
@as_json
@at_service
def list_(service: Service, /, *, key: str, in_keyset: bool, as_json: bool) -> None:
    """List who may do what."""
    answer = service.get(resource_of(in_keyset=in_keyset), key, "grants")
    if as_json:
        print_json(answer)
        return
    rows = ((one["principal"], cell(one["operations"])) for one in answer["grants"])
    print_table(("principal", "operations"), rows)


@grants.command()
@key
@_principal
@click.argument(
    "operations",
    nargs=-1,
    required=True,
    metavar="OPERATION...",
    help=f"{' '.join(GRANTABLE)}.",
    type=click.Choice(list(map(str, GRANTABLE))),
)
@_of_set
@as_json
@at_service
def give(
    service: Service,
    /,
    *,
    key: str,
    principal: str,
    operations: tuple[str, ...],
    in_keyset: bool,
    as_json: bool,
) -> None:
    """Let a principal do these operations and no others."""
    body = {"operations": operations}
    answer = service.put(resource_of(in_keyset=in_keyset), key, "grants", principal, body=body)
    print_members(answer, as_json=as_json)


@grants.command()
@key
@_principal
@_of_set
@as_json
@at_service
def take(service: Service, /, *, key: str, principal: str, in_keyset: bool, as_json: bool) -> None:
    """Let a principal do nothing any more."""
    service.delete(resource_of(in_keyset=in_keyset), key, "grants", principal)
    print_members({"key": key, "principal": principal, "operations": []}, as_json=as_json)
