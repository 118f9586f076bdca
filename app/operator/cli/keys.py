"""``jose-hsm keys``: what an operator sees and does of all keys, whoever owns them."""

import argparse
import sys
from collections.abc import Iterator
from typing import Any, Final

from app import current_request
from app.config import Config
from app.keys.adoption import adopt
from app.operator.cli.service import (
    OPERATOR,
    catalogue_of,
    keyring_of,
    opened,
    print_json,
    print_table,
    record,
    registry_of,
)
from app.rights import GRANTABLE, Right
from app.schemas.catalogue import MOST_KEYS, STATES, DescriptionResponse

_DESCRIPTION: Final = DescriptionResponse()
_FILTERS: Final = ("kty", "alg", "state", "tag", "owner")
_COLUMNS: Final = ("kid", "kty", "alg", "state", "owner", "name", "tags", "expires")


def add_to(commands: Any) -> None:
    """Add the command and what belongs to it."""
    keys = commands.add_parser("keys", help="list, show, destroy, grant and adopt keys")
    verbs = keys.add_subparsers(required=True, metavar="command")

    def verb(name: str, text: str, run: Any, *, names_key: bool = True) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, help=text)
        parser.add_argument("--json", action="store_true", help="print JSON")
        if names_key:
            parser.add_argument("kid")
        parser.set_defaults(command=run)
        return parser

    listing = verb("list", "list keys", _list, names_key=False)
    for name in _FILTERS:
        choices = STATES if name == "state" else None
        listing.add_argument(f"--{name}", choices=choices, help=f"only those with this {name}")
    verb("show", "show everything that is known of a key", _show)
    verb("destroy", "destroy a key for ever, both halves of a pair", _destroy)
    grant = verb("grant", "let a principal do these operations and no others", _grant)
    grant.add_argument("principal", help="as token:NAME, jwt:SUBJECT, mtls:dns:NAME or '*'")
    grant.add_argument(
        *("operations",), nargs="*", metavar="operation", help=" ".join(GRANTABLE) + "; or none"
    )
    adoption = verb(
        "adopt", "take a key of the token into the registry, as it is", _adopt, names_key=False
    )
    adoption.add_argument("key", help="CKA_ID in hexadecimal, label, or RFC 7512 URI")
    adoption.add_argument("--owner", required=True, help="as token:NAME")
    adoption.add_argument("--alg", help="the one algorithm it is for, if it can do several")


def _list(config: Config, options: argparse.Namespace) -> int:
    filters = {name: getattr(options, name) for name in _FILTERS if getattr(options, name)}
    keys = list(_all(config, filters))
    if options.json:
        print_json(keys)
    else:
        print_table(_COLUMNS, ([_cell(key.get(name)) for name in _COLUMNS] for key in keys))
    return 0


def _all(config: Config, filters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    catalogue, after = catalogue_of(config), ""
    while True:
        page = catalogue.page(OPERATOR, filters | {"after": after, "limit": MOST_KEYS})
        yield from map(_DESCRIPTION.dump, page.keys)
        if page.after is None:
            return
        after = page.after


def _show(config: Config, options: argparse.Namespace) -> int:
    catalogue = catalogue_of(config)
    key = dict(_DESCRIPTION.dump(catalogue.read(OPERATOR, options.kid)))
    grants = catalogue.grants(OPERATOR, options.kid)
    _print(key | {"grants": grants}, as_json=options.json)
    return 0


def _destroy(config: Config, options: argparse.Namespace) -> int:
    current = current_request.begin()
    try:
        keyring_of(config).destroy(OPERATOR, options.kid)
    finally:
        if current.change:  # it is destroyed, even if the token has gone away meanwhile
            record(config, "keys.destroy", kid=options.kid, **current.change)
        current_request.end()
    _print({"kid": options.kid, "state": "destroyed"}, as_json=options.json)
    return 0


def _grant(config: Config, options: argparse.Namespace) -> int:
    unknown = set(options.operations) - set(GRANTABLE)
    if unknown:
        print(f"jose-hsm: not an operation: {' '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    catalogue = catalogue_of(config)
    operations = [Right(name) for name in options.operations]
    catalogue.grant(OPERATOR, options.kid, options.principal, operations)
    grantee, granted = options.principal, sorted(operations)
    record(config, "keys.grant", kid=options.kid, grantee=grantee, operations=granted)
    grants = catalogue.grants(OPERATOR, options.kid)
    _print({"kid": options.kid, "grants": grants}, as_json=options.json)
    return 0


def _adopt(config: Config, options: argparse.Namespace) -> int:
    key = adopt(
        registry_of(config), opened(config), options.key, owner=options.owner, alg=options.alg
    )
    record(config, "keys.adopt", new_kid=str(key.kid), owner=options.owner, key=options.key)
    described = catalogue_of(config).read(OPERATOR, str(key.kid))
    _print(dict(_DESCRIPTION.dump(described)), as_json=options.json)
    return 0


def _print(members: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(members)
    else:
        print_table(("member", "value"), ((name, _cell(members[name])) for name in members))


def _cell(value: Any) -> Any:
    match value:
        case list():
            return " ".join(value)
        case dict():
            return "; ".join(f"{name}: {_cell(value[name])}" for name in value)
        case _:
            return value
