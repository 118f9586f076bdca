"""``jose-hsm audit``: whether the audit log is whole."""

from pathlib import Path

import click

from app.audit import BEGINNING
from app.audit import verify as verify_chain
from app.config import Config
from app.operator.cli.command import configured
from app.terminal.failure import CommandFailed


@click.group()
def audit() -> None:
    """Look after the audit log."""


@audit.command()
@click.option("--head", help="The hash of a line that must be there.")
@click.option(
    "--after",
    default=BEGINNING,
    metavar="HASH",
    help="The hash of the line before the first, if older files have been deleted.",
)
@click.argument("files", nargs=-1, type=Path, help="The oldest first; default: the log.")
@configured
def verify(config: Config, *, head: str | None, after: str, files: tuple[Path, ...]) -> int:
    """Tell whether the lines are those that were written, all and in order."""
    paths = files or tuple(filter(None, [config.audit_path]))
    if not paths:
        raise CommandFailed("there is no audit log: it is switched off")
    try:
        report = verify_chain(paths, head, after=after)
    except OSError as error:
        raise CommandFailed(str(error)) from error
    print(f"lines: {report.lines}, of them torn: {report.torn}")
    print(f"from {report.first} to {report.last}")
    print(f"head: {report.head}")
    if not report.is_end_known:
        print("whether lines are missing at the end is not known: there is no .lock beside it")
    if report.broken:
        print(f"broken: {report.broken}")
    is_head_missing = bool(head and not report.is_head_met)
    if is_head_missing:
        print(f"broken: no line has the hash {head}")
    return int(is_head_missing or report.broken is not None)
