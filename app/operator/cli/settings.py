"""``jose-hsm config``: what the service would be told, and whether it is there."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import Field, fields
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from app.config import Config
from app.duration import write_duration
from app.errors import RegistryUnavailable
from app.operator.cli.command import configured
from app.operator.cli.registry import require_migrated
from app.settings import PREFIX, ConfigError, name_of, principals
from app.terminal.output import as_json as json_option
from app.terminal.output import print_json, print_table

_NOT_SHOWN: Final = "(not shown)"
_ABSENT: Final = "is not there"


@click.group()
def config() -> None:
    """Show and check the settings."""


@config.command()
@json_option
@configured
def show(config: Config, *, as_json: bool) -> int:
    """Show every setting as it is written; of secrets only that they are set."""
    shown = {name_of(setting): _shown(config, setting) for setting in fields(Config)}
    if as_json:
        print_json(shown)
    else:
        print_table(("setting", "value", "set"), (_row(*item) for item in shown.items()))
    return 0


def _row(name: str, value: str | None) -> tuple[str, str | None, str]:
    return name, value, "yes" if os.environ.get(name) else ""


def _shown(config: Config, setting: Field[Any]) -> str | None:
    value = getattr(config, setting.name)
    if value is None or value == ():
        return None
    if not setting.repr:
        return _NOT_SHOWN
    match value:
        case bool():
            return str(int(value))
        case tuple():
            return ("|" if setting.metadata["parse"] is principals else ",").join(value)
        case timedelta():
            return write_duration(value)
    return str(value)


@config.command()
@configured
def check(config: Config) -> int:
    """See whether all files that the settings name can be read, and the registry is migrated.

    Prints what is wrong, a line each; the exit status is then 1. The token is not opened:
    `jose-hsm doctor` does that.
    """
    problems = [*_of_files(config), *_of_contents(config)]
    for problem in problems:
        print(problem)
    if not problems:
        print("all that the settings name is there")
    return int(bool(problems))


def _of_files(config: Config) -> Iterator[str]:
    for setting in fields(Config):
        path = getattr(config, setting.name)
        is_directory = setting.name == "state_dir"
        if isinstance(path, Path) and (reason := _objection(path, is_directory=is_directory)):
            yield f"{name_of(setting)}: {path} {reason}"
    keys = config.jwt_jwks
    if keys and "://" not in keys and (reason := _objection(Path(keys))):
        yield f"{PREFIX}JWT_JWKS: {keys} {reason}"
    if config.audit_log and config.audit_path:
        yield from _of_audit_log(config.audit_path)


def _of_audit_log(path: Path) -> Iterator[str]:
    """Look for the directory if the file is not there: that is made when it is written."""
    reason = _objection(path)
    if reason == _ABSENT:
        path, reason = path.parent, _objection(path.parent, is_directory=True)
    if reason:
        yield f"{PREFIX}AUDIT_LOG: {path} {reason}"


def _objection(path: Path, *, is_directory: bool = False) -> str | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _ABSENT
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not os.access(path, os.R_OK):
        return "cannot be read"
    if stat.S_ISDIR(found.st_mode) is is_directory:
        return None
    return "is no directory" if is_directory else "is a directory"


def _of_contents(config: Config) -> Iterator[str]:
    for look in (
        partial(_require_pin, config),
        config.read_proxy_secret,
        partial(require_migrated, config),
    ):
        try:
            look()
        except (ConfigError, RegistryUnavailable) as error:
            yield str(error)


def _require_pin(config: Config) -> None:
    """Raise ``ConfigError`` for a PIN that is none; what has no file has been said already."""
    with suppress(OSError):
        try:
            pin = config.read_pin()
        except UnicodeDecodeError:
            raise ConfigError(f"{PREFIX}PIN_FILE: {config.pin_file} is not in UTF-8") from None
        if not pin:
            raise ConfigError(f"{PREFIX}PIN_FILE: {config.pin_file} is empty")
