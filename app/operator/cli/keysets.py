"""``jose-hsm keysets``: what an operator sees and does of all key sets, whoever owns them."""

from collections.abc import Iterator
from typing import Any, Final

import click

from app.config import Config
from app.keys.sets.catalogue import kid_of
from app.operator.cli.command import configured
from app.operator.cli.service import OPERATOR, changing, keysets_of, record, recorded
from app.registry import State
from app.schemas.catalogue import MOST_KEYS
from app.schemas.keysets import KeySetResponse, RotateRequest
from app.terminal.output import as_json
from app.terminal.tables import print_keyset, print_keysets

_KEYSET: Final = KeySetResponse()
_ROTATE: Final = RotateRequest()
_name: Final = click.argument("name")


@click.group(epilog="At a service there are others: jose-hsm --url URL keysets --help.")
def keysets() -> None:
    """List, show, rotate and revoke versions of key sets."""


@keysets.command("list")
@as_json
@configured
def list_(config: Config, *, as_json: bool) -> int:
    """List key sets."""
    print_keysets(list(_all(config)), as_json=as_json)
    return 0


def _all(config: Config) -> Iterator[dict[str, Any]]:
    catalogue, after = keysets_of(config), ""
    while True:
        page = catalogue.page(OPERATOR, after=after, limit=MOST_KEYS)
        yield from map(_KEYSET.dump, page.keysets)
        if page.after is None:
            return
        after = page.after


@keysets.command()
@as_json
@_name
@configured
def show(config: Config, *, name: str, as_json: bool) -> int:
    """Show everything that is known of a key set, and its versions."""
    _print(keysets_of(config).read(OPERATOR, name), as_json=as_json)
    return 0


@keysets.command()
@as_json
@_name
@click.option("--at", help="When, as 2030-01-31T12:00:00Z; by default as soon as it may.")
@changing
def rotate(config: Config, *, name: str, at: str | None, as_json: bool) -> int:
    """Have the service rotate a key set; its next version is published for a time before."""
    with recorded(config, "keysets.rotate"):
        told = keysets_of(config).rotate(OPERATOR, name, _ROTATE.load({"at": at})["at"])
    _print(told, as_json=as_json)
    return 0


@keysets.command()
@as_json
@_name
@click.argument("kid")
@changing
def revoke(config: Config, *, name: str, kid: str, as_json: bool) -> int:
    """Say, for ever, that others may have a version; the service has another one take over."""
    told = keysets_of(config).revoke(OPERATOR, name, kid_of(kid), is_followed=False)
    record(config, "keysets.revoke", keyset=name, kid=kid, state=State.COMPROMISED)
    _print(told, as_json=as_json)
    return 0


def _print(told: dict[str, Any], *, as_json: bool) -> None:
    print_keyset(_KEYSET.dump(told), as_json=as_json)
