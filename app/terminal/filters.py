"""The options by which a list of keys is narrowed, at a service as beside it."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_DAY: Final = click.DateTime(["%Y-%m-%d"])


def key_filters(states: click.Choice[str] | None = None) -> Callable[[Command], Command]:
    """Return a decorator that adds them; ``states`` are those to choose from, if they are known."""
    options = (
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

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add
