"""Create, move and rotate the key-encryption key."""

import sys
from pathlib import Path
from typing import Any, Final, cast

import click
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from app.config import Config
from app.jwk import load_public, write_public
from app.keys.wrapped.rewrapping import Rewrapping
from app.operator.cli.kek import files
from app.operator.cli.service import changing, opened, record, registry_of
from app.terminal.failure import CommandFailed
from app.terminal.output import as_json, print_json, print_list, spinner

_NEWER: Final = "Start the services anew: those that run do not know it yet."
_LOST: Final = "Who loses this key loses every key that it has encrypted: back the token up."


@click.group()
def kek() -> None:
    """Create, move and rotate the key that encrypts keys."""


@kek.command()
@click.option("--exportable", is_flag=True, help="Let it be taken to another token, wrapped.")
@click.option("--another", is_flag=True, help="To rotate to, where there is one.")
@as_json
@changing
def create(config: Config, *, exportable: bool, another: bool, as_json: bool) -> int:
    """Make the key-encryption key on the token."""
    keeping = opened(config).keeping
    there = keeping.keepable().kek
    if there is not None and not another:
        raise CommandFailed(f"the token has one, {there}; add --another to make one to rotate to")
    made = str(keeping.create_kek(extractable=exportable))
    record(config, "kek.create", kek=made, exportable=exportable)
    return _tell({"kek": made, "exportable": exportable}, as_json, _NEWER, _LOST)


@kek.command("import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--prepare", is_flag=True, help="Write to FILE the key to export it for.")
@click.option("--exportable", is_flag=True, help="Let it be taken on from this token.")
@as_json
@changing
def import_(config: Config, *, file: Path, prepare: bool, exportable: bool, as_json: bool) -> int:
    """Take the key-encryption key of another token: first with --prepare, then what it exports."""
    keeping = opened(config).keeping
    if prepare:
        alg, public = keeping.prepare_import()
        jwk = write_public(public) | {"alg": alg}
        thumbprint = files.thumbprint(jwk)
        files.write(file, jwk)
        record(config, "kek.prepare", thumbprint=thumbprint)
        return _tell({"thumbprint": thumbprint}, as_json)
    parcel = files.read_parcel(file)
    keeping.import_kek(parcel, extractable=exportable)
    record(config, "kek.import", kek=str(parcel.kek), exportable=exportable)
    return _tell({"kek": str(parcel.kek), "exportable": exportable}, as_json, _NEWER, _LOST)


@kek.command()
@click.argument("recipient", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--thumbprint", required=True, help="What `import --prepare` has printed on the other host."
)
@as_json
@changing
def export(config: Config, *, recipient: Path, file: Path, thumbprint: str, as_json: bool) -> int:
    """Write the key-encryption key to FILE, wrapped for the token that RECIPIENT is of."""
    jwk = files.read_recipient(recipient)
    if files.thumbprint(jwk) != thumbprint:
        raise CommandFailed(f"{recipient} has another thumbprint: is it that of the other host?")
    public = cast(RSAPublicKey, load_public(jwk))
    parcel = opened(config).keeping.export_kek(jwk["alg"], public)
    files.write_parcel(file, parcel)
    record(config, "kek.export", kek=str(parcel.kek), thumbprint=thumbprint)
    return _tell({"kek": str(parcel.kek)}, as_json)


@kek.command()
@as_json
@changing
def rotate(config: Config, *, as_json: bool) -> int:
    """Encrypt under the newest key-encryption key what is under others, while services serve.

    It can be interrupted and run again. Exit status: 1 if keys are left under others.
    """
    token, registry = opened(config), registry_of(config)
    rewrapping = Rewrapping(registry=registry, keeping=token.keeping)
    with spinner("encrypting keys anew") as show:
        done = rewrapping.run(lambda number: show(f"{number:,} keys encrypted anew"))
    newest, there = str(token.keeping.keepable().kek), token.keeping.keks()
    under = {kek: number for kek, number in registry.keks.in_use().items() if str(kek) != newest}
    lacking = {str(kek): under[kek] for kek in sorted(under.keys() - there)}
    left, broken = sum(under.values()), sorted(map(str, done.broken))
    told = {"kek": newest, "rewrapped": done.number, "left": left, "broken": broken}
    told |= {"unreadable": sorted(done.unreadable), "lacking": lacking}
    record(config, "kek.rotate", **told)
    if as_json:
        print_json(told)
    else:
        print(f"kek: {newest}\nencrypted anew: {done.number}\nleft under others: {left}")
        print_list("left alone, for others have changed their rows", broken)
        print_list("left alone, for their rows cannot be read", sorted(done.unreadable))
        print_list(
            "key-encryption keys that the token lacks, and keys under them",
            (f"{kek}: {number}" for kek, number in lacking.items()),
        )
    return int(bool(left))


def _tell(members: dict[str, Any], as_json: bool, *advice: str) -> int:  # the option
    if as_json:
        print_json(members)
    else:
        for name, value in members.items():
            print(f"{name}: {value}")
        for line in advice:
            print(line, file=sys.stderr)
    return 0
