"""``jose-hsm keys``: what an operator sees and does of all keys, whoever owns them."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import IO, Any, Final

import click

from app.config import Config
from app.errors import RegistryUnavailable
from app.keys.adoption import adopt
from app.kid import is_kid
from app.operator.cli.command import configured
from app.operator.cli.service import (
    OPERATOR,
    catalogue_of,
    changing,
    keyring_of,
    opened,
    record,
    recorded,
    registry_of,
)
from app.operator.cli.wrapping import wrap
from app.pkcs11_uri import path_of
from app.registry import State
from app.rights import GRANTABLE, Right
from app.schemas.catalogue import MOST_KEYS, SHOWN_STATES, DescriptionResponse
from app.terminal.failure import CommandFailed
from app.terminal.options import key_filters
from app.terminal.output import as_json, print_members
from app.terminal.questions import ask
from app.terminal.tables import print_keys

_DESCRIPTION: Final = DescriptionResponse()
_kid: Final = click.argument("kid")


@click.group(epilog="At a service there are others: jose-hsm --url URL keys --help.")
def keys() -> None:
    """List, show, grant, deactivate, destroy, restore, adopt and wrap keys."""


keys.add_command(wrap)


@keys.command("list")
@key_filters(click.Choice(SHOWN_STATES))
@as_json
@configured
def list_(
    config: Config, /, *, as_json: bool, unused_since: datetime | None, **filters: str | None
) -> int:
    """List keys."""
    narrowed_to: dict[str, Any] = {name: value for name, value in filters.items() if value}
    if unused_since is not None:
        narrowed_to["unused_since"] = unused_since.date()
    print_keys(list(_all(config, narrowed_to)), as_json=as_json)
    return 0


def _all(config: Config, filters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    catalogue, after = catalogue_of(config), ""
    while True:
        page = catalogue.page(OPERATOR, filters | {"after": after, "limit": MOST_KEYS})
        yield from map(_DESCRIPTION.dump, page.keys)
        if page.after is None:
            return
        after = page.after


@keys.command()
@as_json
@_kid
@configured
def show(config: Config, *, kid: str, as_json: bool) -> int:
    """Show everything that is known of a key."""
    catalogue = catalogue_of(config)
    key = dict(_DESCRIPTION.dump(catalogue.read(OPERATOR, kid)))
    print_members(key | {"grants": catalogue.grants(OPERATOR, kid)}, as_json=as_json)
    return 0


@keys.command()
@as_json
@_kid
@changing
def deactivate(config: Config, *, kid: str, as_json: bool) -> int:
    """Let a key verify and decrypt only; its owner can make it active again."""
    return _change(config, "keys.deactivate", kid, State.DEACTIVATED, as_json=as_json)


@keys.command()
@as_json
@_kid
@changing
def compromise(config: Config, *, kid: str, as_json: bool) -> int:
    """Say, for ever, that others may have a key: it signs no more and is not published."""
    return _change(config, "keys.compromise", kid, State.COMPROMISED, as_json=as_json)


def _change(config: Config, command: str, kid: str, state: State, *, as_json: bool) -> int:
    kid = _kid_of(config, kid)
    described = catalogue_of(config).change(OPERATOR, kid, {"state": state})
    record(config, command, kid=kid, state=state)
    print_members(dict(_DESCRIPTION.dump(described)), as_json=as_json)
    return 0


@keys.command()
@as_json
@_kid
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--now", is_flag=True, help="Even if it could be restored.")
@changing
def destroy(config: Config, *, kid: str, yes: bool, now: bool, as_json: bool) -> int:
    """Destroy a key for ever, both halves of a pair; one with destroy_after only after that."""
    if not yes:
        ask(f"Destroy {kid} for ever?")
    kid = _kid_of(config, kid)
    creation = keyring_of(config).creation
    with recorded(config, "keys.destroy", kid=kid) as current:
        (creation.destroy_at_once if now else creation.destroy)(OPERATOR, kid)
    if current.when_audited:
        with suppress(RegistryUnavailable):  # then the janitor removes the row
            current.when_audited()
    destroys = current.change.get("destroy_at")
    gone = {"state": "destroying", "destroys": destroys} if destroys else {"state": "destroyed"}
    print_members({"kid": kid, **gone}, as_json=as_json)
    return 0


@keys.command()
@as_json
@_kid
@changing
def restore(config: Config, *, kid: str, as_json: bool) -> int:
    """Bring back a key that is to be destroyed, as it was before."""
    kid = _kid_of(config, kid)
    described = catalogue_of(config).restore(OPERATOR, kid)
    record(config, "keys.restore", kid=kid, destroy_at=None)
    print_members(dict(_DESCRIPTION.dump(described)), as_json=as_json)
    return 0


@keys.command()
@as_json
@_kid
@click.argument("principal", help="As token:NAME, jwt:SUBJECT, mtls:dns:NAME or '*'.")
@click.argument(
    "operations", nargs=-1, metavar="[OPERATION]...", help=f"{' '.join(GRANTABLE)}; or none."
)
@changing
def grant(
    config: Config, *, kid: str, principal: str, operations: tuple[str, ...], as_json: bool
) -> int:
    """Let a principal do these operations and no others."""
    unknown = set(operations) - set(GRANTABLE)
    if unknown:
        raise CommandFailed(f"not an operation: {' '.join(sorted(unknown))}")
    catalogue, kid = catalogue_of(config), _kid_of(config, kid)
    catalogue.grant(OPERATOR, kid, principal, list(map(Right, operations)))
    record(config, "keys.grant", kid=kid, grantee=principal, operations=sorted(operations))
    print_members({"kid": kid, "grants": catalogue.grants(OPERATOR, kid)}, as_json=as_json)
    return 0


@keys.command("adopt")
@as_json
@click.argument("key", help="CKA_ID in hexadecimal, label, or RFC 7512 URI.")
@click.option("--owner", required=True, help="As token:NAME.")
@click.option("--alg", help="The one algorithm it is for, if it can do several.")
@click.option(
    "--public-key", type=click.File("rb"), help="Its public half in PEM, if the token lacks it."
)
@changing
def adopt_(  # its options
    config: Config,
    *,
    key: str,
    owner: str,
    alg: str | None,
    public_key: IO[bytes] | None,
    as_json: bool,
) -> int:
    """Take a key of the token into the registry, as it is."""
    pem = public_key.read() if public_key else None
    adopted = adopt(registry_of(config), opened(config), key, owner=owner, alg=alg, public_key=pem)
    record(config, "keys.adopt", new_kid=str(adopted.kid), owner=owner, key=path_of(key))
    described = catalogue_of(config).read(OPERATOR, str(adopted.kid))
    print_members(dict(_DESCRIPTION.dump(described)), as_json=as_json)
    return 0


def _kid_of(config: Config, name: str) -> str:
    """Return the kid of the key that is called ``name``: the audit log knows no other."""
    return name if is_kid(name) else str(catalogue_of(config).read(OPERATOR, name)["kid"])
