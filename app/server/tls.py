"""TLS where no proxy ends it."""

import logging
import ssl
from pathlib import Path
from typing import Any, Final

from gunicorn import sock

logger = logging.getLogger(__name__)


class Tls:
    """The settings of TLS, read again when one of their files has changed."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg
        paths = (cfg.certfile, cfg.keyfile, cfg.ca_certs)
        self._files: Final = [Path(path) for path in paths if path]
        self._seen = self._changed()
        self._context: ssl.SSLContext = sock.ssl_context(cfg)

    def context(self) -> ssl.SSLContext:
        """Return them as they are now; as they were, while half of them is new."""
        try:
            if (changed := self._changed()) != self._seen:
                self._context = sock.ssl_context(self._cfg)
                self._seen = changed
        except (OSError, ssl.SSLError):
            logger.exception("the certificate cannot be read; the one from before is used")
        return self._context

    def _changed(self) -> list[int]:
        return [path.stat().st_mtime_ns for path in self._files]
