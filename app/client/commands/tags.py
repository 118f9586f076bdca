"""``tags``."""

import click

from app.client.command import at_service, key
from app.client.service import Service
from app.terminal.output import as_json, print_members

_tags = click.argument("names", metavar="TAG...", nargs=-1, required=True)


@click.group()
def tags() -> None:
    """List, add and remove the tags of a key."""


@tags.command("list")
@key
@as_json
@at_service
def list_(service: Service, /, *, key: str, as_json: bool) -> None:
    """List the tags of a key."""
    print_members(service.get("keys", key, "tags"), as_json=as_json)


@tags.command()
@key
@_tags
@as_json
@at_service
def add(service: Service, /, *, key: str, names: tuple[str, ...], as_json: bool) -> None:
    """Add tags; jwks publishes the public half of a pair."""
    print_members(service.post("keys", key, "tags", body={"tags": names}), as_json=as_json)


@tags.command()
@key
@_tags
@as_json
@at_service
def remove(service: Service, /, *, key: str, names: tuple[str, ...], as_json: bool) -> None:
    """Remove tags, whether the key has them or not."""
    print_members(service.delete("keys", key, "tags", body={"tags": names}), as_json=as_json)
