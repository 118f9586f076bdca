"""The service, put together: who is given what, and in which order it starts."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from flask import Flask, request
from werkzeug.exceptions import NotFound

from app import observability
from app.audit import AuditLog
from app.auth import authenticator
from app.auth.certificates import Proxy
from app.auth.client_address import ClientAddress
from app.config import Config
from app.http import answers, request_body
from app.http.audit_hook import AuditHook
from app.http.json_answers import Responses
from app.http.views import (
    batch,
    capabilities,
    docs,
    encryption,
    grants,
    health,
    jwks,
    keys,
    openapi,
    signing,
    status,
)
from app.keys.capabilities import Capabilities
from app.keys.catalogue import Catalogue
from app.keys.janitor import Janitor
from app.keys.keyring import Keyring
from app.observability import LastHour, Metrics, Stream
from app.observability.multiprocess import shared_directory, started_at
from app.operator.restoration import serving_lock
from app.operator.status import Status
from app.registry import Registry, Watch
from hsm import Hsm, file_lock

_URL_PREFIX: Final = "/v1/crypto"
_STDOUT: Final = 1
_RESTORATION_SECONDS: Final = 30.0


def create_app(config: Config | None = None) -> Flask:
    """Build the service and begin to open the token; call after fork, never before.

    Raises ``ConfigError``. The token is opened in the background: until then requests get 503.
    """
    config = config or Config.from_env()
    metrics = Metrics()
    stream = Stream(_STDOUT, dropped=metrics.dropped)
    app = Flask(__name__, static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.json = Responses(app)
    # A path is a name, not a hint: no redirects to what it might have meant.
    app.url_map.merge_slashes = False
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    app.extensions["serving"] = serving = ExitStack()  # held for the life of the process
    lock = serving_lock(config.state_dir)
    serving.enter_context(file_lock(lock, shared=True, wait_seconds=_RESTORATION_SECONDS))
    registry = Registry(config.registry_url, host=config.host, observe=metrics.used_registry)
    shared_dir = Path(directory) if (directory := shared_directory()) else None
    token = Hsm(replace(config.hsm_settings, observer=metrics, shared_dir=shared_dir))
    app.extensions["metrics"] = metrics
    app.extensions["hsm"] = token
    app.extensions["registry_watch"] = watch = Watch(registry.find)
    keyring = app.extensions["keyring"] = Keyring(
        registry, token, state_dir=config.state_dir, publishes=config.jwks_tagging
    )
    app.extensions["catalogue"] = Catalogue(registry, published_keys=config.jwks_keys)
    app.extensions["capabilities"] = Capabilities(config=config)
    history = LastHour(
        config.state_dir / "history.json", source=metrics.source, counts=metrics.counts
    )
    app.extensions["status"] = Status(
        config=config,
        token=token,
        registry=registry,
        watch=watch,
        metrics=metrics,
        history=history,
        capabilities=app.extensions["capabilities"],
        started=started_at(),
    )
    proxy = Proxy.of(config)
    address = ClientAddress(proxy)
    app.extensions["audit"] = audit_log = AuditLog(config.audit_path) if config.audit_path else None
    app.extensions["audit_hook"] = audit_hook = AuditHook(audit_log, metrics, address)
    observability.register(app, config, stream, metrics, audit_hook.end)  # the outermost hooks
    app.before_request(_require_exact_path)
    authenticator.register(app, config, registry.credentials, proxy, address)
    route(app)
    if config.pages:
        for page in (docs, status):
            app.register_blueprint(page.blueprint)
    answers.register(app)
    request_body.register(app)
    observability.configure(stream, config.log_level)
    stream.start()
    token.start()
    app.extensions["janitor"] = janitor = Janitor(keyring, audit_log)
    janitor.start()
    watch.start()
    metrics.start(token)
    if config.pages:
        history.start(metrics.turn)
    return app


def route(app: Flask) -> None:
    """Give ``app`` every endpoint of the service."""
    for resource in (keys, grants, encryption, signing, batch, capabilities):
        app.register_blueprint(resource.blueprint, url_prefix=_URL_PREFIX)
    for resource in (jwks, health, openapi):
        app.register_blueprint(resource.blueprint)


def _require_exact_path() -> None:
    """Refuse ``//v1/…``, which werkzeug takes for ``/v1/…`` and a proxy with rules may not."""
    if request.environ["PATH_INFO"].startswith("//"):
        raise NotFound
