"""``jose-hsm``: what an operator does beside the service."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import click

from app.server.confinement import confine

_COMMANDS: Final = MappingProxyType(
    {
        "serve": ("serving", "Serve as the settings say."),
        "dev": ("serving", "Serve on loopback with a token for development."),
        "migrate": ("registry", "Create or update the schema of the registry."),
        "config": ("settings", "Show and check the settings."),
        "claim": ("registry", "Have the token belong to this registry, and to no other."),
        "reconcile": ("registry", "Finish or undo what killed processes left."),
        "audit": ("audit", "Look after the audit log."),
        "token": ("tokens", "Create, list and revoke API tokens."),
        "keys": ("keys", "List, show, grant, deactivate, destroy, restore, adopt and wrap keys."),
        "keysets": ("keysets", "List, show, rotate and revoke versions of key sets."),
        "kek": ("kek.commands", "Create, move and rotate the key that encrypts keys."),
        "doctor": ("doctor", "Examine the installation and say what to do."),
        "backup": ("backup", "Write the registry to a file, while the service serves."),
        "restore": ("backup", "Put a backup in the place of the registry."),
    }
)
"""The module of each command, and what the list of commands says of it."""

_INTERRUPTED: Final = 130  # as a shell has it, 128 + SIGINT


class LazyCommand(click.Command):
    """A command whose module is imported when it is run.

    Together they need Flask's libraries, SQLAlchemy and the token; the list of them needs none.
    """

    def __init__(self, name: str, module: str, summary: str) -> None:
        super().__init__(name, help=summary)
        self._module = f"{__name__}.{module}"

    def load(self) -> click.Command:
        """Return the command itself."""
        command: click.Command = getattr(import_module(self._module), str(self.name))
        return command

    def make_context(self, *arguments: Any, **named: Any) -> click.Context:
        """Return the context of the command itself, which click goes on with."""
        return self.load().make_context(*arguments, **named)


jose_hsm: Final = click.Group(
    "jose-hsm",
    help="Settings are read from the environment, as the service does.",
    params=[
        click.Option(
            ["--settings"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Take these, too, from a file such as systemd's EnvironmentFile=.",
        )
    ],
    context_settings={"help_option_names": ["-h", "--help"]},
    commands=[LazyCommand(name, *row) for name, row in _COMMANDS.items()],
)
click.version_option(package_name="jose-hsm", message="%(prog)s %(version)s")(jose_hsm)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, that of the process without ``arguments``; return its exit status."""
    if arguments is None:
        confine()
    try:
        return int(jose_hsm.main(arguments, prog_name="jose-hsm", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        print("jose-hsm: interrupted", file=sys.stderr)
        return _INTERRUPTED
