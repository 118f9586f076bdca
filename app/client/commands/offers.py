"""``capabilities``, ``jwks``, ``random``, ``ready``, ``batch`` and ``request``."""

from typing import IO, Any, Final

import click

from app.client.command import at_service, data, json_anyway, out, write, write_line
from app.client.files import json_object
from app.client.service import Service, with_query
from app.jose import encoding
from app.terminal.output import as_json, print_json, print_members, print_table, written

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


@click.command()
@as_json
@at_service
def capabilities(service: Service, /, *, as_json: bool) -> None:
    """Show what the service and its token offer."""
    answer = service.get("capabilities")
    if as_json:
        print_json(answer)
        return
    rows = (
        (name, " ".join(_kinds(row)), " ".join(_operations(row)))
        for section in ("signatures", "macs", "key_managements")
        for name, row in answer[section].items()
    )
    print_table(("alg", "keys", "operations"), rows)


def _kinds(row: dict[str, Any]) -> list[str]:
    return [kind.get("crv", kind["kty"]) for kind in row["keys"]]


def _operations(row: dict[str, Any]) -> list[str]:
    """Return what is offered; of a key management, what is so with any ``enc``."""
    parts = [row, *row.get("enc", {}).values()]
    operations = [item for part in parts for item in part.get("operations", {}).items()]
    return list(dict.fromkeys(name for name, told in operations if told["offered"]))


@click.command()
@click.option("--owner", help="Only keys of this principal.")
@click.option("--tag", help="Only keys with this tag, too.")
@click.option("--keyset", help="Only versions of this key set.")
@json_anyway
@at_service
def jwks(service: Service, /, **filters: str | None) -> None:
    """Print the published keys, a JWK Set."""
    print_json(service.ask("GET", with_query("/.well-known/jwks.json", filters)))


@click.command()
@click.argument("count", metavar="BYTES", type=int)
@click.option("--raw", is_flag=True, help="Write the bytes themselves.")
@out
@as_json
@at_service
def random(service: Service, /, *, count: int, raw: bool, out: IO[bytes], as_json: bool) -> None:
    """Print random bytes of the token.

    They are in base64url unless --raw is said.
    """
    answer = service.post("random", body={"bytes": count})
    if raw:
        out.write(encoding.decode(answer["data"]))
    else:
        write(answer, "data", out, as_json=as_json)


@click.command()
@as_json
@at_service
def ready(service: Service, /, *, as_json: bool) -> None:
    """Tell whether the service can serve; the status is 4 if not."""
    print_members(service.ask("GET", "/health/ready"), as_json=as_json)


@click.command()
@data
@json_anyway
@at_service
def batch(service: Service, /, *, file: IO[bytes]) -> None:
    """Send many requests at once, in JSON.

    FILE is an object with `requests`, as the reference of the API has it.
    """
    print_json(service.post("batch", body=json_object(file.read(), name=file.name)))


def _target(_context: click.Context, _argument: click.Parameter, path: str) -> str:
    if not (path.startswith("/") and path.isascii() and path.isprintable()) or " " in path:
        raise click.BadParameter("must begin with / and be in ASCII without blanks")
    return path


@click.command()
@click.argument("method", type=click.Choice(_METHODS, case_sensitive=False))
@click.argument("path", callback=_target, help="As /v1/crypto/capabilities.")
@click.argument("file", type=click.File("rb"), required=False, help="A body in JSON; none without.")
@out
@json_anyway
@at_service
def request(
    service: Service, /, *, method: str, path: str, file: IO[bytes] | None, out: IO[bytes]
) -> None:
    """Send any request of the API, in JSON.

    What has no command of its own, or an option too few, is done with it.
    """
    body = json_object(file.read(), name=file.name) if file else None
    answer = service.call(method, path, body)
    if isinstance(answer, bytes):
        out.write(answer)
    elif answer is not None:
        write_line(written(answer), out)
