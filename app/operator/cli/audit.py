"""``jose-hsm audit``: whether the audit log is whole."""

from pathlib import Path

import click

from app.audit import verify as verify_chain
from app.config import Config
from app.operator.cli.command import CommandFailed, configured


@click.group()
def audit() -> None:
    """Look after the audit log."""


@audit.command()
@click.option("--head", help="The hash of a line that must be there.")
@click.argument("files", nargs=-1, type=Path, help="The oldest first; default: the log.")
@configured
def verify(config: Config, head: str | None, files: tuple[Path, ...]) -> int:
    """Tell whether the lines are those that were written, all and in order."""
    try:
        report = verify_chain(files or [path for path in [config.audit_path] if path], head)
    except OSError as error:
        raise CommandFailed(str(error)) from error
    print(f"lines: {report.lines}, of them torn: {report.torn}")
    print(f"from {report.first} to {report.last}")
    print(f"head: {report.head}")
    if report.broken:
        print(f"broken: {report.broken}")
    is_head_missing = bool(head and not report.is_head_met)
    if is_head_missing:
        print(f"broken: no line has the hash {head}")
    return int(is_head_missing or report.broken is not None)
