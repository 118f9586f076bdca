"""How often one AES-GCM key may encrypt: IVs are random, 96 bits, and must not meet."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final
from uuid import UUID

from cachetools import LRUCache

import hsm
from app.keys.access import performed
from app.registry import Registry
from hsm import CryptoFailure

logger = logging.getLogger(__name__)

MOST_ENCRYPTIONS: Final = 2**32
"""NIST SP 800-38D §8.3: then two IVs are equal with a probability of 2^-32."""

WARNING_AT: Final = 2**31
_FIRST_BLOCK: Final = 2**8
_LARGEST_BLOCK: Final = 2**16
_KEYS_REMEMBERED: Final = 65_536


def is_counted(alg: str, enc: str) -> bool:
    """Tell whether the key itself encrypts with a random IV: the content, or the CEK."""
    return is_counted_for(performed(alg, enc))


def is_counted_for(alg: str | None) -> bool:
    """Tell whether keys that are for ``alg`` encrypt so themselves."""
    row = hsm.CONTENT_ENCRYPTIONS.get(alg or "") or hsm.KEY_MANAGEMENTS.get(alg or "")
    return row is not None and row.is_counted


@dataclass(slots=True)
class _Share:
    left: int = 0
    next_block: int = _FIRST_BLOCK


class EncryptionBudget:
    """Counts encryptions with each key, over all processes and restarts.

    A process reserves them in the registry in blocks, which grow with use, and a block that it
    takes to its grave counts as used: never too few are counted, and rarely is anything written.
    """

    def __init__(
        self, registry: Registry, observe: Callable[[float], None] = lambda _part: None
    ) -> None:
        """Begin; ``observe`` is told which part of its encryptions a key has behind it."""
        self._registry = registry
        self._observe = observe
        self._lock = Lock()
        # By number: a UUID hashes and compares itself in Python.
        self._shares: LRUCache[int, _Share] = LRUCache(_KEYS_REMEMBERED)

    def spend(self, kid: UUID) -> None:
        """Count one encryption; raise ``CryptoFailure`` if the key has none left.

        Raises ``KeyNotFound`` if the key is gone, and ``RegistryUnavailable``.
        """
        if not self._spend_own(kid):
            self._reserve(kid)

    def _spend_own(self, kid: UUID) -> bool:
        with self._lock:
            try:
                share = self._shares[kid.int]
            except KeyError:  # ``get`` would look twice
                return False
            if not share.left:
                return False
            share.left -= 1
            return True

    def _reserve(self, kid: UUID) -> None:
        """Reserve a block and spend the first of it."""
        with self._lock:
            block = self._shares.get(kid.int, _Share()).next_block
        granted, total = self._registry.reserve_encryptions(kid, block, most=MOST_ENCRYPTIONS)
        if not granted:
            raise CryptoFailure(
                "The key has encrypted as often as an AES-GCM key may; make another"
            )
        self._observe(total / MOST_ENCRYPTIONS)
        if total >= WARNING_AT > total - granted:
            logger.warning("key %s has half of its encryptions behind it: replace it", kid)
        with self._lock:
            left = self._shares.get(kid.int, _Share()).left + granted - 1
            self._shares[kid.int] = _Share(left, min(2 * block, _LARGEST_BLOCK))
