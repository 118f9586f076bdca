"""Who may use which key, and whether the key fits.

404 for what is not there, 403 for what is not theirs, 422 for what the key is not for.
"""

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Final, Protocol

import hsm
from app import current_request
from app.errors import BadRequest, Forbidden, RegistryUnavailable
from app.jwk import write_public
from app.kid import is_kid, names_key
from app.registry import Found, Granted, Key, Registry, State, VersionState
from app.rights import Principal, Right
from app.schemas.messages.received_header import Header
from hsm import CryptoFailure, Hsm, HsmError, KeyNotFound, TokenUnavailable, UnsupportedAlgorithm

logger = logging.getLogger(__name__)

OLDEST_SECONDS: Final = 0.9
"""How old the rows of a batch may be: with the turn that a series takes less than a second."""


class Rows(Protocol):
    """Where rows are read: the registry, or what was read there for a batch."""

    def find_for(self, principal: str, operation: str, kid: str) -> Found | None:
        """Return the key of a kid or an alias, and what is granted on it."""

    def find_all_for(self, principal: str, kids: Collection[str]) -> Mapping[str, Granted]:
        """Return the keys of several kids, with what is granted on each, read at once."""


class RowsOfBatch(Rows):
    """The rows of one batch: all are read at once, and again when they are nearly a second old.

    So a revoked grant and a compromised key count while the batch is under way.
    """

    def __init__(self, registry: Registry, principal: Principal, kids: Iterable[str]) -> None:
        self._registry: Final = registry
        self._principal: Final = principal
        self._kids: Final = frozenset(filter(names_key, kids))
        self._lost: frozenset[str] = frozenset()
        self._rows, self._read_at = self._read(), time.monotonic()

    def find_for(self, principal: str, operation: str, kid: str) -> Found | None:
        """See ``Rows``; raise ``RegistryUnavailable`` if the row could not be read."""
        if (found := self._young_rows({kid}).get(kid)) is None:
            return None
        key, granted = found
        return Found(key, operation in granted, bool(granted))

    def find_all_for(self, principal: str, kids: Collection[str]) -> Mapping[str, Granted]:
        """See ``Rows``; raise ``RegistryUnavailable`` if one of the rows could not be read."""
        rows = self._young_rows(kids)
        return {kid: rows[kid] for kid in kids if kid in rows}

    def _young_rows(self, kids: Collection[str]) -> Mapping[str, Granted]:
        if time.monotonic() - self._read_at >= OLDEST_SECONDS:
            self._rows, self._read_at = self._read(), time.monotonic()
        if self._rows is None or not self._lost.isdisjoint(kids):
            raise RegistryUnavailable
        return self._rows

    def _read(self) -> Mapping[str, Granted] | None:
        """Return the keys by kid, with what is granted on each; ``None`` without a registry."""
        try:
            rows, self._lost = self._registry.find_readable_for(self._principal, self._kids)
        except RegistryUnavailable:
            return None
        return rows


def find(rows: Rows, principal: Principal, kid: str, right: Right) -> Key:
    """Return the key that ``kid`` names, by its alias too.

    Raises ``KeyNotFound``, or ``Forbidden`` without the right to it. Here and in what follows
    are the ways to a key of a caller's: rights are checked nowhere else.
    """
    return _permitted(
        principal, right, kid, rows.find_for(principal, right, kid) if names_key(kid) else None
    )


def find_lasting(registry: Registry, principal: Principal, kid: str, right: Right) -> Key:
    """Return the key as ``find`` does, also one that was deleted and can be had back."""
    found = registry.find_lasting_for(principal, right, kid) if names_key(kid) else None
    return _permitted(principal, right, kid, found)


def find_of_message(rows: Rows, principal: Principal, header: Header, right: Right) -> Key:
    """Return the key of a message: that of the kid beside it, or else of its header.

    Raises what ``find`` does; ``BadRequest`` if the header names another key that the caller
    knows. Whatever else it names is a name that somebody else uses.
    """
    kids = header.kids
    if len(kids) == 1:
        return find(rows, principal, header.kid, right)
    return KeysOfMessage(rows, principal, kids).find_of(header, right)


class KeysOfMessage:
    """The keys that a message names, read at once, as far as they are the caller's business."""

    def __init__(self, rows: Rows, principal: Principal, kids: Collection[str]) -> None:
        self._principal: Final = principal
        self._granted: Final = rows.find_all_for(principal, list(filter(names_key, kids)))

    def find(self, kid: str, right: Right) -> Key:
        """Return the key that ``kid`` names; see ``find`` above."""
        return _permitted(self._principal, right, kid, self._found(kid, right))

    def find_of(self, header: Header, right: Right) -> Key:
        """Return the key of a message; see ``find_of_message``."""
        key = self.find(header.kid, right)
        if any(self.is_another(kid, key) for kid in header.kids):
            raise BadRequest("Field 'kid' is not that of the header")
        return key

    def find_to_verify(self, kid: str) -> Key:
        """Return the key for verification, which is another right for those of a MAC."""
        granted = self._granted.get(kid)
        is_pair = granted is None or granted[0].spec.kind.is_pair
        return self.find(kid, Right.VERIFY if is_pair else Right.MAC)

    def usable(self, kid: str | None, right: Right) -> Key | None:
        """Return the key if the caller has the right to it."""
        with suppress(KeyNotFound, Forbidden):
            return self.find(kid or "", right)
        return None

    def usable_to_verify(self, kid: str | None) -> Key | None:
        """Return the key if the caller may verify with it."""
        with suppress(KeyNotFound, Forbidden):
            return self.find_to_verify(kid or "")
        return None

    def is_that(self, kid: str | None, key: Key) -> bool:
        """Tell whether ``kid`` is a name of ``key``."""
        granted = self._granted.get(kid or "")
        return granted is not None and granted[0].kid == key.kid

    def is_another(self, kid: str | None, key: Key) -> bool:
        """Tell whether ``kid`` means another key that the caller knows.

        Whoever takes an alias and grants everybody a right must not block the messages of others:
        an alias is believed of the owners only whose keys the caller uses here.
        """
        found = self._found(kid or "", Right.READ)
        if found is None or found.key.kid == key.kid:
            return False
        is_ours = is_kid(kid or "") or found.key.owner in {self._principal, key.owner}
        return is_ours and _knows(self._principal, found)

    def _found(self, kid: str, right: Right) -> Found | None:
        if kid not in self._granted:
            return None
        key, rights = self._granted[kid]
        return Found(key, right in rights, bool(rights))


def _permitted(principal: Principal, right: Right, kid: str, found: Found | None) -> Key:
    """Return the key found for ``kid``: the one check of rights.

    A kid has been told to whoever has it. An alias can be guessed: without any right to the key
    it is not there.
    """
    if found is None:
        raise KeyNotFound
    if not is_kid(kid):  # logs have no name that a caller has chosen
        current_request.name(kid=str(found.key.kid))
    if principal.may(right, owner=found.key.owner, is_granted=found.is_granted):
        return found.key
    if is_kid(kid) or _knows(principal, found):
        raise Forbidden
    raise KeyNotFound


def _knows(principal: Principal, found: Found) -> bool:
    """Tell whether a caller may use or read a key."""
    return principal.may(Right.READ, owner=found.key.owner, is_granted=found.is_known)


class Existing:
    """Use ``keys`` in a ``with`` block; if that fails, ask the registry whether they exist.

    Whatever a token says of a key that is being destroyed, it is not found; a key that the token
    lacks, and the registry does not, is not available.
    """

    __slots__ = ("_keys", "_registry")

    def __init__(self, registry: Registry, *keys: Key) -> None:
        self._registry = registry
        self._keys = keys

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Note the use, or look why it failed."""
        if error is None:
            for key in self._keys:
                self._registry.uses.note(key.kid)
        elif isinstance(error, HsmError):
            self._explain(error)

    def _explain(self, error: HsmError) -> None:
        for key in self._keys:
            require_existing(self._registry, key)
        if isinstance(error, KeyNotFound):
            kids = " or ".join(str(key.kid) for key in self._keys)
            logger.warning("key %s is in the registry and not on the token", kids)
            raise TokenUnavailable("the token does not hold the key") from None


def require_existing(registry: Registry, key: Key) -> None:
    """Raise ``KeyNotFound`` if ``key`` is not there any more."""
    if registry.find(key.kid) is None:
        raise KeyNotFound from None


def performed(alg: str, enc: str) -> str:
    """Return the algorithm that the key of a JWE performs itself."""
    return enc if alg == hsm.DIRECT else alg


def require_permitted(key: Key, algorithm: str) -> None:
    """Raise ``CryptoFailure`` if the key is not for ``algorithm``."""
    if not key.spec.permits(algorithm):
        raise CryptoFailure(f"The key does not permit {algorithm}")


def find_to_encrypt(  # where, who, which key, and what with
    rows: Rows, token: Hsm, principal: Principal, kid: str, alg: str
) -> Key:
    """Return the key that is to encrypt with ``alg``."""
    key = find(rows, principal, kid, Right.ENCRYPT)
    require_encrypts(token, key, alg)
    return key


def require_encrypts(token: Hsm, key: Key, alg: str) -> None:
    """Raise what ``require_fit`` does, and ``CryptoFailure`` if the key does not encrypt now."""
    require_fit(token, key, alg)
    require_active(key)


def find_to_mac(rows: Rows, principal: Principal, kid: str, alg: str) -> Key:
    """Return the key that is to make a MAC."""
    key = find(rows, principal, kid, Right.MAC)
    require_permitted(key, alg)
    require_active(key)
    return key


def find_to_sign(
    rows: Rows, principal: Principal, kid: str, alg: str, right: Right = Right.SIGN
) -> Key:
    """Return the key that is to sign; it takes ``right`` to have it do so."""
    key = find(rows, principal, kid, right)
    require_signer(key, kid, alg)
    return key


def require_signer(key: Key, kid: str, alg: str) -> None:
    """Raise ``CryptoFailure`` if ``kid`` names a public half, or the key does not sign now."""
    if kid == str(key.kid_public):
        raise CryptoFailure("A public key cannot sign; use the kid of the pair, not its kid_public")
    require_permitted(key, alg)
    require_active(key)


def require_permitted_verification(key: Key, algorithm: str) -> None:
    """Raise ``CryptoFailure`` if signatures of ``algorithm`` cannot be those of the key."""
    if not key.spec.permits_under_any_name(algorithm):
        raise CryptoFailure(f"The key does not permit {algorithm}")


def require_fit(token: Hsm, key: Key, algorithm: str) -> None:
    """Refuse what the key is not for, and what the token lacks on its curve alone."""
    require_permitted(key, algorithm)
    crv = key.spec.crv
    reason = token.offers()[algorithm].refusal(crv) if crv else None
    if reason is not None:
        raise UnsupportedAlgorithm.not_offered(algorithm, reason)


def require_on_curve(key: Key, agreement: hsm.Agreement) -> None:
    """Raise ``CryptoFailure`` if an ephemeral key is not on the curve of the key."""
    if agreement.epk and write_public(agreement.epk)["crv"] != key.spec.crv:
        raise CryptoFailure("Header member 'epk' is not on the curve of the key")


def require_signs_digests(key: Key, alg: str) -> None:
    """Raise ``CryptoFailure`` if the key signs no digest that somebody else has taken."""
    row = hsm.SIGNATURES[alg]
    if row.digest_mechanism is None:
        raise CryptoFailure(f"{alg} signs data, and no digest of it")
    if row.digest_mechanism is not row.mechanism and not key.spec.signs_digests:
        raise CryptoFailure("The key was made without 'digest', and signs no digests")


def require_active(key: Key) -> None:
    """Raise ``CryptoFailure`` if the key makes nothing new any more."""
    if key.state is not State.ACTIVE:
        raise CryptoFailure(f"The key is {key.state}")


def require_alone(registry: Registry, key: Key) -> None:
    """Raise ``CryptoFailure`` for a version of a key set, which has all that can be changed."""
    if (found := registry.keysets.name_of(key.kid)) is not None:
        raise CryptoFailure(f"The key is a version of the key set {found[0]}; change that")


def require_not_needed(registry: Registry, key: Key) -> None:
    """Raise ``CryptoFailure`` for the version of a key set that signs, or that will."""
    found = registry.keysets.name_of(key.kid)
    if found is not None and found[1] in {VersionState.CURRENT, VersionState.NEXT}:
        raise CryptoFailure(f"The key is the {found[1]} version of the key set {found[0]}")
