"""What all commands at a service have in common."""

from collections.abc import Callable
from functools import wraps
from typing import IO, Any, Concatenate, Final, ParamSpec

import click

from app.client.files import json_object
from app.client.service import Service
from app.terminal.options import together
from app.terminal.output import print_json, written

_Arguments = ParamSpec("_Arguments")

NO: Final = 1
"""The status of a command whose answer is no: a signature or a MAC is not valid."""

key: Final = click.argument("key", help="Its kid or alias.")
alg: Final = click.option("--alg", help="Algorithm; by default that of the key.")
data: Final = click.argument(
    "file", type=click.File("rb"), default="-", help="Standard input if it is - or left out."
)
out: Final = click.option(
    "--out",
    type=click.File("wb"),
    default="-",
    help="A file to write, in place of standard output.",
)
in_keyset: Final = click.option(
    "--keyset", "in_keyset", is_flag=True, help="KEY is a key set: take its current version."
)
once: Final = click.option(
    "--idempotency-key",
    "once",
    callback=lambda _context, _option, text: _header_text(text),
    help="Make nothing again that this text has made; a new random text for each key.",
)
json_anyway: Final = click.option(
    "--json", is_flag=True, expose_value=False, help="So it is in any case."
)


_HEADER: Final = together(
    click.option("--typ", help="Type of the message, for the header."),
    click.option("--cty", help="Type of the content, for the header."),
    click.option("--header", type=click.File("rb"), help="More members, a JSON object."),
)


def header_members(command: Callable[..., int]) -> Callable[..., int]:
    """Let ``command`` take members of a header; it gets those that are typed as ``header``."""

    @wraps(command)
    def run(*, typ: str | None, cty: str | None, header: IO[bytes] | None, **others: Any) -> int:
        more = json_object(header.read(), name=header.name) if header else None
        return command(header=given(typ=typ, cty=cty, header=more), **others)

    return _HEADER(run)


def at_service(
    command: Callable[Concatenate[Service, _Arguments], int | None],
) -> Callable[_Arguments, int]:
    """Give ``command`` the service that the command line names."""

    @wraps(command)
    def run(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> int:
        said = click.get_current_context().find_root().params
        service = Service.at(said["url"], said["token_file"])
        return command(service, *arguments, **named) or 0

    return run


def write(answer: Any, member: str, out: IO[bytes], *, as_json: bool) -> None:
    """Write the text that is the ``member`` of an answer; all of that if it is to be JSON."""
    write_line(written(answer) if as_json else answer[member], out)


def write_line(text: str, out: IO[bytes]) -> None:
    """Write a text and the end of its line."""
    out.write(f"{text}\n".encode())


def resource_of(*, in_keyset: bool) -> str:
    """Return where in the API a key is, or a key set."""
    return "keysets" if in_keyset else "keys"


def named(key: str, *, in_keyset: bool) -> dict[str, str]:
    """Return the member by which a body names a key, or a key set."""
    return {"keyset" if in_keyset else "kid": key}


def given(**members: Any) -> dict[str, Any]:
    """Return the members of a body that have been typed."""
    return {
        name: value
        for name, value in members.items()
        if value is not None and value is not False and value != ()
    }


def tell(*, valid: bool, answer: Any, as_json: bool) -> int:
    """Say whether something is valid; return the status."""
    if as_json:
        print_json(answer)
    else:
        print("valid" if valid else "not valid")
    return 0 if valid else NO


def _header_text(text: str | None) -> str | None:
    if text is not None and not (text.isascii() and text.isprintable()):
        raise click.BadParameter("must be printable ASCII")
    return text
