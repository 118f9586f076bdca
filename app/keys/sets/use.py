"""MACs by the name of a key set: the current version makes them, any version verifies."""

from app import current_request
from app.keys.access import Existing, find, find_to_mac, require_existing, require_permitted
from app.keys.use import KeyUse
from app.kid import KeySetName
from app.rights import Principal, Right
from hsm import KeyNotFound


def mac_by_set(
    use: KeyUse, principal: Principal, *, kid: KeySetName, alg: str, data: bytes
) -> tuple[str, bytes]:
    """Return the kid of the current version, and its MAC of ``data``."""
    key = find_to_mac(use.rows, principal, kid, alg)
    with Existing(use.registry, key):
        return str(key.kid), use.hsm.mac(key.ref, alg, data)


def verify_mac_by_set(  # noqa: PLR0913  # the members of the request
    use: KeyUse, principal: Principal, *, kid: KeySetName, alg: str, data: bytes, mac: bytes
) -> tuple[str, bool]:
    """Return the kid of the version whose MAC of ``data`` it is, or that none is it.

    Then the kid is that of the current version.
    """
    current = find(use.rows, principal, kid, Right.MAC)
    require_permitted(current, alg)
    keyset = use.registry.keysets.find(kid.name)
    if keyset is None:  # it has been destroyed meanwhile
        raise KeyNotFound
    for key in use.registry.keysets.keys_of(keyset):
        with Existing(use.registry, key):
            if use.hsm.verify_mac(key.ref, alg, data, mac):
                current_request.name(kid=str(key.kid))
                return str(key.kid), True
    require_existing(use.registry, current)
    return str(current.kid), False
