"""Where the keys of one epoch are kept."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.canary import Canary
from hsm.cryptoki.pool import SessionPool
from hsm.messages import Storage
from hsm.observer import Observer
from hsm.storage.held_keys import HeldKeys
from hsm.storage.keks import found_keks, mechanism_on
from hsm.storage.store import Store
from hsm.storage.token_store import TokenStore
from hsm.storage.wrapped_store import WrappedStore
from hsm.waiting import Resting


def stores_of(  # noqa: PLR0913  # all that an epoch has
    pool: SessionPool,
    templates: Templates,
    canary: Canary,
    *,
    announce_change: Callable[[], None],
    unwrapped_keys: int,
    observer: Observer,
    resting: Resting,
) -> Mapping[Storage, Store]:
    """Return the stores; at most as many ``unwrapped_keys`` are session objects at a time.

    Raises ``TokenUnavailable`` if the token shows nothing.
    """
    keks = found_keks(pool.anchor, canary, mechanism_on(pool.listed))
    held = HeldKeys(pool.open_session, unwrapped_keys, resting)
    return MappingProxyType(
        {
            Storage.TOKEN: TokenStore(templates, canary, announce_change),
            Storage.WRAPPED: WrappedStore(templates, canary, keks, held, observer),
        }
    )


def wrapped_store_of(stores: Mapping[Storage, Store]) -> WrappedStore:
    """Return the store of keys that are kept wrapped."""
    store = stores[Storage.WRAPPED]
    assert isinstance(store, WrappedStore)  # noqa: S101  # it is the one of its name
    return store
