"""Commands whose modules are imported when they are run."""

from importlib import import_module
from typing import Any

import click


class LazyCommand(click.Command):
    """A command whose module is imported when it is run.

    Together they need Flask's libraries, SQLAlchemy and the token; the list of them needs none.
    """

    def __init__(self, name: str, module: str, summary: str) -> None:
        super().__init__(name, help=summary)
        self._module = module

    def load(self) -> click.Command:
        """Return the command itself."""
        module = import_module(self._module)
        command: click.Command = getattr(module, str(self.name).replace("-", "_"))
        return command

    def make_context(self, *arguments: Any, **named: Any) -> click.Context:
        """Return the context of the command itself, which click goes on with."""
        return self.load().make_context(*arguments, **named)
