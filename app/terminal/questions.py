"""What commands ask whoever sits before them."""

import sys

import click

from app.terminal.failure import CommandFailed


def ask(question: str) -> None:
    """Go on if somebody says yes; raise ``CommandFailed`` where nobody is there to ask."""
    if not sys.stdin.isatty():
        raise CommandFailed("there is nobody to ask: add --yes")
    click.confirm(question, abort=True)
