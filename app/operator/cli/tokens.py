"""``jose-hsm token``: API tokens."""

import argparse
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from app.auth import api_tokens
from app.config import Config
from app.operator.cli.service import print_json, print_table, record, registry_of
from app.registry import ApiToken
from app.rights import Role

_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_SPAN: Final = re.compile(r"(\d{1,6})([dhms])", re.ASCII)
_LONGEST: Final = 255


def add_to(commands: Any) -> None:
    """Add the command and what belongs to it."""
    token = commands.add_parser("token", help="create, list and revoke API tokens")
    verbs = token.add_subparsers(required=True, metavar="command")

    create = verbs.add_parser("create", help="make a token and print it, once")
    create.add_argument("--principal", required=True, type=_name, help="who bears it")
    create.add_argument("--name", type=_name, help="what it is for")
    create.add_argument(
        *("--role", "-r"), action="append", default=[], choices=list(map(str, Role)), dest="roles"
    )
    create.add_argument(
        "--expires", type=_expiry, help="a span like 90d or 12h, or an instant (RFC 3339)"
    )
    create.add_argument("--json", action="store_true", help="print JSON")
    create.set_defaults(command=_create)

    listing = verbs.add_parser("list", help="list tokens; the tokens themselves are not kept")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(command=_list)

    revoke = verbs.add_parser("revoke", help="make a token void, at once and for ever")
    revoke.add_argument("id", help="as `token list` shows it")
    revoke.set_defaults(command=_revoke)


def _name(text: str) -> str:
    if not text or len(text) > _LONGEST or not text.isprintable():
        raise argparse.ArgumentTypeError(f"must be 1 to {_LONGEST} printable characters")
    return text


def _expiry(text: str) -> datetime:
    now = datetime.now(UTC)
    try:
        if span := _SPAN.fullmatch(text):
            return now + timedelta(**{_UNITS[span[2]]: int(span[1])})
        instant = datetime.fromisoformat(text.upper())
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("must be like 90d, 12h or 2030-01-31T12:00:00Z") from None
    if instant.tzinfo is None:
        raise argparse.ArgumentTypeError("must say its offset from UTC, as 2030-01-31T12:00:00Z")
    return instant.astimezone(UTC)


def _create(config: Config, options: argparse.Namespace) -> int:
    principal = api_tokens.KIND + options.principal.removeprefix(api_tokens.KIND)
    roles = {Role(role) for role in options.roles}
    token, row = api_tokens.make(
        principal, roles=roles, name=options.name, expires_at=options.expires
    )
    registry_of(config).credentials.add(row)
    record(config, "token.create", token=row.id, bearer=row.principal, roles=list(row.roles))
    if options.json:
        print_json(_described(row) | {"token": token})
    else:
        print(f"{principal}: token {row.id}. Keep it now, it is not shown again:", file=sys.stderr)
        print(token)
    if "token" not in config.auth:
        print("The service takes it only with JOSE_HSM_AUTH=token.", file=sys.stderr)
    return 0


def _list(config: Config, options: argparse.Namespace) -> int:
    rows = [_described(row) for row in registry_of(config).credentials.all()]
    if options.json:
        print_json(rows)
    else:
        columns = ("id", "principal", "name", "roles", "state", "expires", "used")
        print_table(columns, ([_cell(row[column]) for column in columns] for row in rows))
    return 0


def _revoke(config: Config, options: argparse.Namespace) -> int:
    if not registry_of(config).credentials.revoke(options.id):
        print(f"jose-hsm: no token {options.id!r}", file=sys.stderr)
        return 1
    record(config, "token.revoke", token=options.id)
    return 0


def _described(row: ApiToken) -> dict[str, Any]:
    return {
        "id": row.id,
        "principal": row.principal,
        "name": row.name,
        "roles": list(row.roles),
        "state": row.refusal or "valid",
        "created": _instant(row.created_at),
        "expires": _instant(row.expires_at),
        "used": _instant(row.used_at),
        "revoked": _instant(row.revoked_at),
    }


def _instant(value: datetime | None) -> str | None:
    return value.isoformat(timespec="seconds").replace("+00:00", "Z") if value else None


def _cell(value: Any) -> Any:
    return " ".join(value) if isinstance(value, list) else value
