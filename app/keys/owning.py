"""Which registry the token belongs to: no other one is believed."""

import logging
from threading import Lock

from app.errors import RegistryCause, RegistryUnavailable
from app.registry import Registry
from hsm import Hsm, TokenUnavailable

logger = logging.getLogger(__name__)


class TokenOwner:
    """Compares the registry with what is written on the token, once for each epoch and file.

    A registry that is empty, or an old one, would answer 404 for keys that exist, and lose those
    that are made meanwhile: so it looks where a mount is missing, or a path is wrong.
    """

    def __init__(self, registry: Registry, hsm: Hsm) -> None:
        self._registry = registry
        self._hsm = hsm
        self._confirmed: object = None
        self._identity = ""
        self._claiming = Lock()
        self._claimed: object = None

    def require(self, place: object) -> None:
        """Raise ``RegistryUnavailable`` unless the registry, at ``place``, is that of the token."""
        now = self._hsm.state.epoch, place
        if now == self._confirmed:
            return
        try:
            self._identity = self._confirm()
        except TokenUnavailable as error:
            raise RegistryUnavailable(RegistryCause.UNCONFIRMED) from error
        self._confirmed = now

    def check(self) -> None:
        """Raise ``RegistryUnavailable`` if the database does not answer, or not as before."""
        if self._confirmed and self._registry.identity() != self._identity:
            self._confirmed = None
        self._registry.check()

    def _confirm(self) -> str:
        ours, found = self._registry.identity(), self._hsm.registry
        if found and found != ours:
            logger.error("the token belongs to the registry %s, and this is %s", found, ours)
            raise RegistryUnavailable(RegistryCause.ANOTHER)
        if not found:
            self._claim(ours)
        return ours

    def _claim(self, ours: str) -> None:
        now = self._hsm.state.epoch, ours
        with self._claiming:  # threads that begin together would each write it down
            if now != self._claimed:
                self._claim_first(ours)
                self._claimed = now

    def _claim_first(self, ours: str) -> None:
        # A row is written before its key is made: another worker may just have made the first.
        if self._registry.is_new() and self._hsm.inventory() and self._registry.is_new():
            logger.error("the token has keys, and the registry has never had one")
            raise RegistryUnavailable(RegistryCause.ANOTHER)
        claim(self._hsm, ours)


def claim(hsm: Hsm, registry: str) -> None:
    """Have the token belong to ``registry``; some tokens do not permit that to be written down."""
    if hsm.assign_to(registry):
        logger.info("the token belongs to the registry %s from now on", registry)
    else:
        logger.warning("the token does not permit to write down what registry it belongs to")
