"""Clears away, in the background, what killed processes and lost tokens have left half done."""

import atexit
import logging
import random
import threading
from typing import Final

from app.errors import RegistryUnavailable
from app.keys.keyring import Keyring
from hsm import HsmError

logger = logging.getLogger(__name__)

_STOP_SECONDS: Final = 5.0


class Janitor:
    """Settles now and then; what cannot be settled now is left for the next time."""

    def __init__(self, keyring: Keyring, *, pause_seconds: float = 60.0) -> None:
        self._keyring = keyring
        self._pause_seconds = pause_seconds
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="janitor", daemon=True)

    def start(self) -> None:
        """Begin. Call after fork, never before."""
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """End the thread: the interpreter must not be torn down around a call into the library."""
        self._is_stopping.set()
        self._thread.join(_STOP_SECONDS)

    def _work(self) -> None:
        # Jitter, so that the processes of a host do not come all at once.
        while not self._is_stopping.wait(
            self._pause_seconds * random.SystemRandom().uniform(0.5, 1.0)
        ):
            try:
                for kid in self._keyring.settle():
                    logger.warning("key %s, begun and not ended, is cleared away", kid)
            except (HsmError, RegistryUnavailable) as error:
                logger.info("nothing is cleared away now: %s", error)
