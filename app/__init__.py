"""jose-hsm: the REST Native Crypto API on keys that stay in an HSM."""

import logging
from typing import Final

from flask import Flask, request
from werkzeug.exceptions import NotFound

from app import bodies, errors
from app.blueprints import encryption, keys, signing
from app.config import Config
from app.janitor import Janitor
from app.keyring import Keyring
from app.registry import Registry
from hsm import Hsm

_URL_PREFIX: Final = "/v1/crypto"


def create_app(config: Config | None = None) -> Flask:
    """Build the service and begin to open the token; call after fork, never before.

    Raises ``ConfigError``. The token is opened in the background: until then requests get 503.
    """
    config = config or Config.from_env()
    logging.basicConfig(level=config.log_level.upper())
    app = Flask(__name__, static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of the default provider
    # A path is a name, not a hint: no redirects to what it might have meant.
    app.url_map.merge_slashes = False
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    token = Hsm(config.hsm_settings)
    app.extensions["hsm"] = token
    keyring = app.extensions["keyring"] = Keyring(
        Registry(config.registry_url, host=config.host), token, state_dir=config.state_dir
    )
    app.before_request(_require_exact_path)
    for resource in (keys, encryption, signing):
        app.register_blueprint(resource.blueprint, url_prefix=_URL_PREFIX)
    errors.register(app)
    bodies.register(app)
    token.start()
    app.extensions["janitor"] = janitor = Janitor(keyring)
    janitor.start()
    return app


def _require_exact_path() -> None:
    """Refuse ``//v1/…``, which werkzeug takes for ``/v1/…`` and a proxy with rules may not."""
    if request.environ["PATH_INFO"].startswith("//"):
        raise NotFound
