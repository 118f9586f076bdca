"""How a command says that it cannot do what it shall."""

import sys
from typing import IO, Any

import click


class CommandFailed(click.ClickException):
    """A command cannot do what it shall: one line on stderr says why."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the reason."""
        print(f"jose-hsm: {self.message}", file=file or sys.stderr)
