"""``keys``: what there is, and what becomes of it."""

from collections.abc import Callable
from datetime import datetime
from types import MappingProxyType
from typing import IO, Any, Final

import click

from app.client.command import at_service, key, out, write_line
from app.client.commands.making import create, import_, unwrap, wrapping_key
from app.client.failures import no_answer
from app.client.service import Service, path_of
from app.terminal.failure import CommandFailed
from app.terminal.lazy import LazyCommand
from app.terminal.options import key_filters
from app.terminal.output import as_json, print_members, written
from app.terminal.questions import ask
from app.terminal.tables import print_keys

_STATES: Final = MappingProxyType(
    {
        "activate": ("active", "Let a deactivated key sign, encrypt and compute MACs again."),
        "deactivate": ("deactivated", "Let a key verify and decrypt only."),
        "compromise": (
            "compromised",
            "Say, for ever, that others may have a key: it signs no more and is not published.",
        ),
    }
)
_PEM: Final = b"-----BEGIN "
_WRAP: Final = "Wrap a key in PEM, PKCS#8 or PKCS#12 for a token, to be imported."


@click.group(epilog="Beside the service there are others: leave the URL out.")
def keys() -> None:
    """Create, import, list, show, change and destroy keys."""


for _command in (create, import_, unwrap, wrapping_key):
    keys.add_command(_command)
keys.add_command(LazyCommand("wrap", "app.operator.cli.wrapping", _WRAP))


@keys.command("list")
@key_filters()
@as_json
@at_service
def list_(
    service: Service, /, *, unused_since: datetime | None, as_json: bool, **filters: str | None
) -> None:
    """List the keys that you may read."""
    day = unused_since.date().isoformat() if unused_since else None
    print_keys(list(service.listed("keys", unused_since=day, **filters)), as_json=as_json)


@keys.command()
@key
@as_json
@at_service
def show(service: Service, /, *, key: str, as_json: bool) -> None:
    """Show everything that is known of a key."""
    print_members(service.get("keys", key), as_json=as_json)


@keys.command()
@key
@out
@click.option("--json", "as_json", is_flag=True, help="Print the JWK.")
@at_service
def public(service: Service, /, *, key: str, out: IO[bytes], as_json: bool) -> None:
    """Print the public half of a key in PEM, or as a JWK."""
    if not as_json:
        pem = service.call("GET", path_of("keys", key, "public.pem"))
        if not (isinstance(pem, bytes) and pem.startswith(_PEM)):
            raise no_answer()
        out.write(pem)
        return
    described = service.get("keys", key)
    if "jwk" not in described:
        raise CommandFailed("a secret key has no public half")
    write_line(written(described["jwk"]), out)


@keys.command()
@key
@click.option("--name", help="For people; an empty one takes it away.")
@click.option("--alias", help="What it is called beside its kid; an empty one takes it away.")
@click.option("--expires", help="As 2030-01-31T12:00:00Z; empty for never.")
@click.option("--owner", help="Whom to hand it over to, as token:NAME.")
@as_json
@at_service
def change(service: Service, /, *, key: str, as_json: bool, **members: str | None) -> None:
    """Change the name, alias, expiry or owner of a key."""
    body = {name: text or None for name, text in members.items() if text is not None}
    if not body:
        raise CommandFailed("change what? See --help")
    _change(service, key, body, as_json=as_json)


def _changing_to(state: str) -> Callable[..., int]:
    @key
    @as_json
    @at_service
    def change(service: Service, /, *, key: str, as_json: bool) -> None:
        _change(service, key, {"state": state}, as_json=as_json)

    return change


for _name, (_state, _says) in _STATES.items():
    keys.command(_name, help=_says)(_changing_to(_state))


def _change(service: Service, key: str, body: dict[str, Any], *, as_json: bool) -> None:
    answer = service.ask("PATCH", path_of("keys", key), body)
    print_members(answer, as_json=as_json)


@keys.command()
@key
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@at_service
def destroy(service: Service, /, *, key: str, yes: bool, as_json: bool) -> None:
    """Destroy a key, both halves of a pair.

    One with destroy_after can be restored until then: `keys show` says when that is.
    """
    if not yes:
        ask(f"Destroy {key}?")
    service.delete("keys", key)
    print_members({"key": key, "deleted": True}, as_json=as_json)


@keys.command()
@key
@as_json
@at_service
def restore(service: Service, /, *, key: str, as_json: bool) -> None:
    """Bring back a key that is to be destroyed, as it was before."""
    print_members(service.post("keys", key, "restore", body=None), as_json=as_json)
