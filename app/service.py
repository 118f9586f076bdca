"""The parts of the service that serve one application."""

from __future__ import annotations  # the types below are for mypy: who imports this needs none

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from contextlib import ExitStack

    from flask import Flask

    from app.audit import AuditLog
    from app.auth.authenticator import Authenticator
    from app.config import Config
    from app.http.audit_hook import AuditHook
    from app.keys.capabilities import Capabilities
    from app.keys.catalogue import Catalogue
    from app.keys.janitor import Janitor
    from app.keys.keyring import Keyring
    from app.keys.sets.catalogue import KeySetCatalogue
    from app.observability import LastHour, Metrics, Stock, Stream
    from app.operator.status import Status
    from app.registry import Registry, Watch
    from hsm import Hsm, Periodic

_NAME: Final = "jose_hsm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What views, hooks and background threads share; ``locks`` are held while it serves."""

    config: Config
    hsm: Hsm
    registry: Registry
    watch: Watch
    keyring: Keyring
    catalogue: Catalogue
    keysets: KeySetCatalogue
    capabilities: Capabilities
    janitor: Janitor
    rotation: Periodic
    uses: Periodic
    stock: Stock
    authenticator: Authenticator
    audit_log: AuditLog | None
    audit_hook: AuditHook
    metrics: Metrics
    last_hour: LastHour
    status: Status
    stream: Stream
    locks: ExitStack

    def serve(self, app: Flask) -> None:
        """Be what ``service_of`` returns for ``app``."""
        app.extensions[_NAME] = self


def service_of(app: Flask) -> Service:
    """Return the service of ``app``; raise ``KeyError`` if it has none."""
    service: Service = app.extensions[_NAME]
    return service
