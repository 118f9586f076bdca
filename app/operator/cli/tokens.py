"""``jose-hsm token``: API tokens."""

import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from app.auth import api_tokens
from app.config import Config
from app.instants import LAST, is_to_come
from app.operator.cli.command import configured
from app.operator.cli.service import changing, record, registry_of
from app.registry import ApiToken
from app.rights import Role, is_name
from app.terminal.output import as_json, cell, print_json, print_table

_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_SPAN: Final = re.compile(r"(\d{1,6})([dhms])", re.ASCII)
_LONGEST: Final = 255
_COLUMNS: Final = ("id", "principal", "name", "roles", "state", "expires", "used")


def _name(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    if text is not None and not (0 < len(text) <= _LONGEST and text.isprintable()):
        raise click.BadParameter(f"must be 1 to {_LONGEST} printable characters")
    return text


def _bearer(context: click.Context, option: click.Parameter, text: str) -> str:
    name = text.removeprefix(api_tokens.KIND)
    if not is_name(name):
        raise click.BadParameter("must be printable characters, without blanks at the edges")
    return f"{api_tokens.KIND}{_name(context, option, name)}"


def _expiry(_context: click.Context, _option: click.Parameter, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        instant = _read(text)
    except (ValueError, OverflowError):
        raise click.BadParameter("must be like 90d, 12h or 2030-01-31T12:00:00Z") from None
    if not is_to_come(instant):
        raise click.BadParameter(f"must be between now and {LAST:%Y-%m-%dT%H:%M:%SZ}")
    return instant


def _read(text: str) -> datetime:
    if span := _SPAN.fullmatch(text):
        return datetime.now(UTC) + timedelta(**{_UNITS[span[2]]: int(span[1])})
    instant = datetime.fromisoformat(text.upper())
    if instant.tzinfo is None:
        raise click.BadParameter("must say its offset from UTC, as 2030-01-31T12:00:00Z")
    return instant.astimezone(UTC)


@click.group()
def token() -> None:
    """Create, list and revoke API tokens."""


@token.command()
@click.option("--principal", required=True, callback=_bearer, help="Who bears it.")
@click.option("--name", callback=_name, help="What it is for.")
@click.option("--role", "-r", "roles", multiple=True, type=click.Choice(list(map(str, Role))))
@click.option(
    "--expires", callback=_expiry, help="A span like 90d or 12h, or an instant (RFC 3339)."
)
@as_json
@changing
def create(
    config: Config,
    *,
    principal: str,
    name: str | None,
    roles: tuple[str, ...],
    expires: datetime | None,
    as_json: bool,
) -> int:
    """Make a token and print it, once."""
    secret, row = api_tokens.make(
        principal, roles=set(map(Role, roles)), name=name, expires_at=expires
    )
    registry_of(config).credentials.add(row)
    record(config, "token.create", token=row.id, bearer=row.principal, roles=list(row.roles))
    if as_json:
        print_json(_described(row) | {"token": secret})
    else:
        print(f"{principal}: token {row.id}. Keep it now, it is not shown again:", file=sys.stderr)
        print(secret)
    if "token" not in config.auth:
        print("The service takes it only with JOSE_HSM_AUTH=token.", file=sys.stderr)
    return 0


@token.command("list")
@as_json
@configured
def list_(config: Config, *, as_json: bool) -> int:
    """List tokens; the tokens themselves are not kept."""
    rows = [_described(row) for row in registry_of(config).credentials.all()]
    if as_json:
        print_json(rows)
    else:
        print_table(_COLUMNS, ([cell(row[column]) for column in _COLUMNS] for row in rows))
    return 0


@token.command()
@click.argument("token_id", metavar="ID", help="As `token list` shows it.")
@changing
def revoke(config: Config, *, token_id: str) -> int:
    """Make a token void, at once and for ever."""
    if not registry_of(config).credentials.revoke(token_id):
        print(f"jose-hsm: no token {token_id!r}", file=sys.stderr)
        return 1
    record(config, "token.revoke", token=token_id)
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
