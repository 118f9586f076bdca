"""What all commands have in common: the settings, and how they fail."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec

import click

from app.config import Config
from app.errors import AppError
from app.operator.cli import environment_file
from app.operator.errors import BackupError
from app.settings import PREFIX, ConfigError
from app.terminal.failure import CommandFailed
from hsm import HsmError

_Arguments = ParamSpec("_Arguments")


def configured(
    command: Callable[Concatenate[Config, _Arguments], int],
) -> Callable[_Arguments, int]:
    """Give ``command`` the settings, read when it is run; its errors are ``CommandFailed``."""

    @wraps(command)
    def run(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> int:
        try:
            _take_settings(click.get_current_context().find_root().params["settings"])
            return command(Config.from_env(), *arguments, **named)
        except (BackupError, ConfigError, AppError, HsmError) as error:
            raise CommandFailed(str(error)) from error

    return run


def _take_settings(file: Path | None) -> None:
    """Set what ``file`` says; without one, what is not set, as ``make run`` has left it."""
    if file:
        os.environ.update(environment_file.read(file))
        return
    left = Path(os.environ.get(f"{PREFIX}STATE_DIR") or "var") / "settings"
    if left.is_file():
        for name, value in environment_file.read(left).items():
            os.environ[name] = os.environ.get(name) or value  # an empty one is not set
