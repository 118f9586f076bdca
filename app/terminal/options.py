"""Options that several commands have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_DAY: Final = click.DateTime(["%Y-%m-%d"])

password_file: Final = click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Where the password of the file is, if it has one; else it is asked for.",
)


def together(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return a decorator that adds all ``options``, in their order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def key_filters(states: click.Choice[str] | None = None) -> Callable[[Command], Command]:
    """Return what narrows a list of keys, at a service as beside it.

    ``states`` are those to choose from, if they are known.
    """
    return together(
        click.option("--kty", help="Only those with this kty."),
        click.option("--alg", help="Only those with this alg."),
        click.option("--state", type=states, help="Only those with this state."),
        click.option("--tag", help="Only those with this tag."),
        click.option("--owner", help="Only those with this owner."),
        click.option(
            "--unused-since",
            type=_DAY,
            help="Only those that were there before this day and have not been used since.",
        ),
    )
