"""The parts of the service that commands work on."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec

from app import current_request
from app.audit import AuditLog
from app.config import Config
from app.current_request import RequestRecord
from app.errors import AuditUnavailable
from app.host import host_name
from app.keys.catalogue import Catalogue
from app.keys.keyring import Keyring
from app.keys.sets.catalogue import KeySetCatalogue
from app.operator.cli.command import configured
from app.registry import Publication, Registry
from app.rights import Principal, Role
from app.terminal.failure import CommandFailed
from app.terminal.output import spinner
from hsm import Cause, Hsm, TokenUnavailable

_Arguments = ParamSpec("_Arguments")

OPERATOR: Final = Principal("operator", {Role.ADMIN})
"""Who has the token's PIN and the registry may see and end everything."""

_READY_SECONDS: Final = 30.0
_LASTING: Final = frozenset({Cause.MODULE, Cause.PERMISSION, Cause.PIN})
"""What nobody mends while a command waits."""


def registry_of(config: Config) -> Registry:
    """Return the registry."""
    return Registry(config.registry_url, host=host_name(config.state_dir))


def catalogue_of(config: Config) -> Catalogue:
    """Return the catalogue."""
    return Catalogue(registry_of(config), Publication(most=config.jwks_keys))


def keysets_of(config: Config) -> KeySetCatalogue:
    """Return the key sets, whose versions the service makes: the token is not opened here."""
    publication = Publication(most=config.jwks_keys)
    keyring = Keyring.of(registry_of(config), Hsm(config.hsm_settings), state_dir=config.state_dir)
    return KeySetCatalogue.of(
        keyring.creation,
        AuditLog(config.audit_path) if config.audit_path else None,
        max_age=timedelta(seconds=config.jwks_max_age),
        publication=publication,
    )


def keyring_of(config: Config) -> Keyring:
    """Return the keyring; raise ``TokenUnavailable`` if the token does not become ready."""
    return Keyring.of(
        registry_of(config),
        opened(config),
        state_dir=config.state_dir,
        destroy_after=config.destroy_after,
    )


def opened(config: Config) -> Hsm:
    """Return the token, ready; raise ``TokenUnavailable`` if it does not become so."""
    token = Hsm(config.hsm_settings)
    token.start()
    deadline = time.monotonic() + _READY_SECONDS
    with spinner("opening the token"):
        while (state := token.state).reason:
            if state.cause in _LASTING or time.monotonic() > deadline:
                raise TokenUnavailable(state.reason)
            time.sleep(0.05)
    return token


def changing(
    command: Callable[Concatenate[Config, _Arguments], int],
) -> Callable[_Arguments, int]:
    """Give ``command`` the settings, as ``configured`` does, if ``record`` can say what it did."""

    @configured
    @wraps(command)
    def run(config: Config, /, *arguments: _Arguments.args, **named: _Arguments.kwargs) -> int:
        require_audit_log(config)
        return command(config, *arguments, **named)

    return run


def require_audit_log(config: Config) -> None:
    """Raise ``CommandFailed`` where ``record`` could not write: then nothing is to be done."""
    if config.audit_path is None:
        return
    try:
        AuditLog(config.audit_path).record_all([])
    except OSError as error:
        raise CommandFailed(f"nothing is done: the audit log cannot be written: {error}") from error


@contextmanager
def recorded(config: Config, command: str, **members: Any) -> Iterator[RequestRecord]:
    """Record ``members`` and what is noted as done in the ``with`` block, even if it fails then."""
    current = current_request.begin()
    try:
        yield current
    finally:
        current_request.end()
        if current.change:
            record(config, command, **members, **current.change)


def record(config: Config, command: str, **members: Any) -> None:
    """Write to the audit log what the operator did, and who he is on this host.

    Raises ``AuditUnavailable``.
    """
    if config.audit_path is None:
        return
    log = AuditLog(config.audit_path)
    who = {"uid": os.getuid(), "sudo_user": os.environ.get("SUDO_USER")}
    try:
        log.record(is_synced=True, principal=OPERATOR, **who, endpoint=f"cli.{command}", **members)
    except OSError as error:
        raise AuditUnavailable from error
