"""The service, put together: who is given what, and in which order it starts."""

from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flask import Flask
from werkzeug.exceptions import NotFound

from app import observability
from app.audit import AuditLog
from app.auth.asked import asked
from app.auth.authenticator import Authenticator
from app.auth.certificates import Proxy
from app.auth.client_address import ClientAddress
from app.config import Config
from app.host import host_name
from app.http import answers, origin, turns
from app.http.application import Application, Responses
from app.http.audit_hook import AuditHook
from app.http.router import (
    ANSWERS,
    AUDIENCE,
    AUDITS,
    CROSS_ORIGIN,
    DIRECT,
    KINDS,
    LONG,
    PARTS,
    route,
)
from app.keys.capabilities import Capabilities
from app.keys.catalogue import Catalogue
from app.keys.janitor import Janitor
from app.keys.keyring import Keyring
from app.keys.owning import TokenOwner
from app.keys.sets.catalogue import KeySetCatalogue
from app.observability import LastHour, Metrics, Requests, Stock, Stream
from app.observability.multiprocess import shared_directory, started_at
from app.operator.restoration import serving_lock
from app.operator.status import Status
from app.registry import Publication, Registry, Watch
from app.service import Service
from hsm import Hsm, Periodic, Storage, file_lock

if TYPE_CHECKING:
    from app.observability.spans import Spans

_STDOUT: Final = 1
_RESTORATION_SECONDS: Final = 30.0


def create_app(config: Config | None = None) -> Flask:
    """Build the service and begin to open the token; call after fork, never before.

    Raises ``ConfigError``. The token is opened in the background: until then requests get 503.
    """
    service = _service(config or Config.from_env())
    app = _flask()
    service.serve(app)
    _register_hooks(app, service)
    route(app, pages=service.config.pages, admin_page=service.config.admin_page)
    _start(service)
    return app


def _service(config: Config) -> Service:
    """Return the parts, none of which has begun to work."""
    locks = _locks(config)
    metrics = Metrics(ANSWERS, PARTS)
    hsm = _hsm(config, metrics)
    registry = Registry(
        config.registry_url, host=host_name(config.state_dir), observe=metrics.used_registry
    )
    owner = TokenOwner(registry, hsm)
    registry.guard(owner.require)
    watch = Watch(owner.check)
    publication = Publication(most=config.jwks_keys, takes_new=config.jwks_tagging)
    keyring = Keyring.of(
        registry,
        hsm,
        state_dir=config.state_dir,
        publication=publication,
        keys_per_owner=config.keys_per_owner,
        destroy_after=config.destroy_after,
        takes_plain=config.import_ == "any",
        storage=Storage(config.storage),
        observe_budget=metrics.spent,
    )
    capabilities = Capabilities(config=config)
    last_hour = LastHour(
        config.state_dir / "history.json",
        source=metrics.source,
        counts=metrics.counts,
        kinds=KINDS,
    )
    proxy = Proxy.of(config)
    address = ClientAddress(proxy)
    audit_log = AuditLog(config.audit_path) if config.audit_path else None
    keysets = KeySetCatalogue.of(
        keyring.creation,
        audit_log,
        max_age=timedelta(seconds=config.jwks_max_age),
        publication=publication,
        counts=metrics,
    )
    return Service(
        config=config,
        hsm=hsm,
        registry=registry,
        watch=watch,
        keyring=keyring,
        catalogue=Catalogue(registry, publication, keys_per_owner=config.keys_per_owner, token=hsm),
        keysets=keysets,
        capabilities=capabilities,
        rotation=Periodic("rotation", keysets.rotation.settle, pause_seconds=1.0, is_jittered=True),
        janitor=Janitor(keyring.recovery, audit_log),
        stock=Stock(registry, watch),
        uses=Periodic(
            "uses", registry.uses.write, pause_seconds=60.0, at_end=True, is_jittered=True
        ),
        authenticator=Authenticator(config, registry.credentials, proxy, address, AUDIENCE),
        audit_log=audit_log,
        audit_hook=AuditHook(audit_log, metrics, address, keyring.creation.take_back, AUDITS),
        metrics=metrics,
        last_hour=last_hour,
        status=Status(
            config=config,
            hsm=hsm,
            registry=registry,
            watch=watch,
            metrics=metrics,
            history=last_hour,
            capabilities=capabilities,
            kinds=KINDS,
            started=started_at(),
        ),
        stream=Stream(_STDOUT, dropped=metrics.dropped),
        locks=locks,
    )


def _locks(config: Config) -> ExitStack:
    """Keep ``restore`` out; raise ``TokenUnavailable`` if it is at work for long."""
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    locks = ExitStack()
    lock = serving_lock(config.state_dir)
    locks.enter_context(file_lock(lock, shared=True, wait_seconds=_RESTORATION_SECONDS))
    return locks


def _hsm(config: Config, metrics: Metrics) -> Hsm:
    shared_dir = Path(directory) if (directory := shared_directory()) else None
    return Hsm(replace(config.hsm_settings, observer=metrics, shared_dir=shared_dir))


def _flask() -> Flask:
    app = Application(__name__, direct=DIRECT)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.json = Responses(app)
    # A path is a name, not a hint: no redirects to what it might have meant.
    app.url_map.merge_slashes = False
    return app


def _register_hooks(app: Flask, service: Service) -> None:
    """Register what is done before and after every view; what comes first is outermost."""
    config = service.config
    _watch(app, service)
    if not config.auth:
        origin.register(app, CROSS_ORIGIN)
    app.before_request(_require_exact_path)
    service.authenticator.register(app)
    turns.register(app, LONG)
    answers.register(app)


def _watch(app: Flask, service: Service) -> None:
    """Watch the requests; where there is no collector spans cost nothing, not even an import."""
    spans = _spans(service)
    audit = spans.end if spans else service.audit_hook.end
    Requests(service.config, service.stream, service.metrics, audit, KINDS).register(app)
    if spans:
        spans.register(app)


def _spans(service: Service) -> "Spans | None":
    if not service.config.otlp_endpoint:
        return None
    from app.observability.spans import Spans  # noqa: PLC0415  # its packages may be missing

    return Spans(service.config.otlp_endpoint, service.audit_hook.end, KINDS)


def _start(service: Service) -> None:
    """Begin to work in the background."""
    observability.configure(service.stream, service.config.log_level)
    service.stream.start()
    service.hsm.start()
    service.janitor.start()
    service.rotation.start()
    service.uses.start()
    service.watch.start()
    service.metrics.start(service.hsm)
    if service.config.pages:
        service.last_hour.start(service.metrics.turn)


def _require_exact_path() -> None:
    """Refuse ``//v1/…``, which werkzeug takes for ``/v1/…`` and a proxy with rules may not."""
    if asked().environ["PATH_INFO"].startswith("//"):
        raise NotFound
