"""Managing keys: list, read, change, tag, grant.

The token is asked for nothing but new seals of keys that the registry keeps.
"""

from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import hsm
from app import current_request
from app.errors import BadRequest, RegistryUnavailable
from app.jwk import load_public, public_pem
from app.keys.access import find, find_lasting, require_alone
from app.keys.description import describe_fully, public_jwk, thumbprint
from app.keys.quota import Quota
from app.registry import LASTING, VISIBLE, Filters, Key, Publication, Registry, Remarks, State
from app.rights import EVERYBODY, Principal, Right, is_principal
from hsm import CryptoFailure, Hsm, KeyNotFound, Storage

_CHANGES: Final[Mapping[State, frozenset[State]]] = MappingProxyType(
    {
        State.ACTIVE: frozenset({State.ACTIVE, State.DEACTIVATED, State.COMPROMISED}),
        State.DEACTIVATED: frozenset({State.ACTIVE, State.DEACTIVATED, State.COMPROMISED}),
        State.COMPROMISED: frozenset({State.COMPROMISED}),
    }
)
_AUDITED: Final = ("state", "owner", "expires_at", "alias")
_ATTEMPTS: Final = 3
_NONE: Final = Remarks()


class Page(NamedTuple):
    """Keys, and the kid after which the next page begins, if there is one."""

    keys: list[dict[str, Any]]
    after: str | None


class Catalogue:
    """What principals may know of keys and say about them.

    Every method that names a key raises ``KeyNotFound``, then ``Forbidden``.
    """

    def __init__(
        self,
        registry: Registry,
        publication: Publication,
        *,
        keys_per_owner: int | None = None,
        token: Hsm | None = None,
    ) -> None:
        """``token`` is needed to give a key that the registry keeps to another owner."""
        self._registry = registry
        self._token = token
        self._publication = publication
        self._quota = Quota(registry=registry, most=keys_per_owner)

    def page(self, principal: Principal, narrowed_to: Mapping[str, Any]) -> Page:
        """Return those keys that the caller may read, in the order of their kids."""
        state = narrowed_to.get("state")
        filters = Filters(**{**narrowed_to, "state": State(state) if state else None})
        reader = None if principal.may_on_every_key(Right.READ) else str(principal)
        found, remarks = self._registry.pages.page_with_remarks(reader, filters)
        keys = found[: filters.limit]
        after = str(keys[-1].kid) if len(found) > len(keys) else None
        return Page([describe_fully(key, remarks.get(key.kid, _NONE)) for key in keys], after)

    def read(self, principal: Principal, kid: str) -> dict[str, Any]:
        """Return everything that is known of a key, also of one that can be had back."""
        return self._described(find_lasting(self._registry, principal, kid, Right.READ))

    def restore(self, principal: Principal, kid: str) -> dict[str, Any]:
        """Bring back a key that was deleted, as it was; return everything that is known of it.

        Raises ``CryptoFailure`` if it was not deleted, or if its time is over.
        """
        key = find_lasting(self._registry, principal, kid, Right.MANAGE)
        if not self._registry.postponed.end(key.kid):
            state = self._whole(key, LASTING).state
            raise CryptoFailure(
                "The time to restore the key is over"
                if state is State.DESTROYING
                else f"The key is {state}, and there is nothing to restore"
            )
        current_request.change(destroy_at=None)
        return self._described(key)

    def public_pem(self, principal: Principal, kid: str) -> bytes:
        """Return the public half as SubjectPublicKeyInfo in PEM (RFC 7468 §13)."""
        key = self._find(principal, kid, Right.READ)
        if key.public_jwk is None:
            raise CryptoFailure("The key has no public half")
        return public_pem(key.public_jwk)

    def change(self, principal: Principal, kid: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Set ``values`` by column; return everything that is known of the key then.

        A key that its owner gives away is no longer published: that is for the new owner to say.
        """
        if not is_principal(values.get("owner", "anonymous")):
            raise BadRequest("Field 'owner' must be the name of a principal, like token:ci")
        for _ in range(_ATTEMPTS):  # somebody else may change its state meanwhile
            key = self._whole(self._find_alone(principal, kid, Right.MANAGE))
            untagged = []
            if values.get("owner", key.owner) != key.owner:
                self._quota.require(values["owner"])
                # Else whoever trusts his keys would trust what the old one knows, or still may.
                is_trusted = principal.may_on_every_key(Right.MANAGE)
                untagged = [] if is_trusted else [self._publication.tag]
            columns = _columns(key, values) | self._resealed(key, values)
            if self._registry.change(key, untagged, **columns):
                self._wipe(key, values)
                current_request.change(
                    **{name: _audited(values[name]) for name in _AUDITED if name in values},
                    **({"untagged": untagged} if untagged else {}),
                )
                return self._described(key)
        raise RegistryUnavailable

    def _resealed(self, key: Key, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the column of a new seal, where the one of now does not cover ``values``."""
        changed = replace(key, owner=values.get("owner", key.owner))
        if key.storage is Storage.TOKEN or changed.sealed == key.sealed:
            return {}
        assert self._token is not None  # noqa: S101  # no command changes owners
        return {"seal": self._token.keeping.resealed(key.ref, changed.sealed).seal}

    def _wipe(self, key: Key, values: Mapping[str, Any]) -> None:
        """Keep a key that makes nothing new no longer unwrapped than it is used."""
        if self._token is not None and key.storage is Storage.WRAPPED and "state" in values:
            with suppress(hsm.TokenUnavailable):  # then it is gone with what is lost
                self._token.keeping.forget([key.kid])

    def tags(self, principal: Principal, kid: str) -> list[str]:
        """Return the tags of a key, sorted."""
        return self._registry.tags.of(self._find(principal, kid, Right.READ).kid)

    def tag(self, principal: Principal, kid: str, names: Collection[str]) -> list[str]:
        """Add tags; return all of them.

        Raises ``CryptoFailure``, and adds none, if one would publish a key too many.
        """
        key = self._find_alone(principal, kid, Right.TAG)
        is_to_publish = self._publication.tag in names
        if is_to_publish and not self._publish(principal, key):
            raise self._publication.refusal()
        self._registry.tags.add(key.kid, names)
        current_request.change(tagged=sorted(names))
        return self._registry.tags.of(key.kid)

    def _publish(self, principal: Principal, key: Key) -> bool:
        try:
            return self._registry.tags.publish(key.kid, key.owner, self._publication)
        except KeyNotFound:
            self._find(principal, str(key.kid), Right.TAG)  # it has been given away meanwhile
            raise

    def untag(self, principal: Principal, kid: str, names: Collection[str]) -> list[str]:
        """Remove tags; return all that are left."""
        key = self._find_alone(principal, kid, Right.TAG)
        self._registry.tags.remove(key.kid, names)
        current_request.change(untagged=sorted(names))
        return self._registry.tags.of(key.kid)

    def certify(self, principal: Principal, kid: str, chain: Sequence[bytes]) -> dict[str, Any]:
        """Keep the DER of certificates, that of the key first; return what is known of the key.

        Raises ``BadRequest`` unless the first holds the key, and each is signed by the next.
        """
        key = self._find(principal, kid, Right.CERTIFY)
        jwk = key.public_jwk
        if jwk is None or not hsm.is_certificate_of(chain[0], load_public(jwk)):
            raise BadRequest("The first certificate does not hold the key")
        if not hsm.is_chain(chain):
            raise BadRequest("A certificate is not signed by the one after it")
        return self._certified(principal, key, [b64encode(der).decode() for der in chain])

    def uncertify(self, principal: Principal, kid: str) -> None:
        """Forget the certificates of a key."""
        self._certified(principal, self._find(principal, kid, Right.CERTIFY), None)

    def _certified(
        self, principal: Principal, key: Key, certificates: list[str] | None
    ) -> dict[str, Any]:
        for _ in range(_ATTEMPTS):
            if self._registry.change(key, certificates=certificates):
                first = certificates[0] if certificates else None
                current_request.change(certificate=first and thumbprint(first))
                return self._described(key)
            # Somebody else has changed its state or its owner meanwhile, or destroyed it.
            key = self._find(principal, str(key.kid), Right.CERTIFY)
        raise RegistryUnavailable

    def grants(self, principal: Principal, kid: str) -> Mapping[str, list[str]]:
        """Return who may do what with a key, apart from its owner."""
        return self._registry.grants.of(self._find(principal, kid, Right.MANAGE).kid)

    def grant(
        self, principal: Principal, kid: str, grantee: str, operations: Iterable[Right]
    ) -> None:
        """Let ``grantee`` do these operations, if any, with a key, and no others."""
        require_grantee(grantee)
        key = self._find_alone(principal, kid, Right.MANAGE)
        self._registry.grants.put(key.kid, grantee, operations)
        current_request.change(grantee=grantee, operations=sorted(operations))

    def published(self, narrowed_to: Mapping[str, str]) -> Sequence[dict[str, Any]]:
        """Return the public keys that everybody may fetch, as JWKs: of an owner, with a tag."""
        keys = self._registry.tags.published(self._publication, **narrowed_to)
        return [public_jwk(key) for key in keys]

    def _find(self, principal: Principal, kid: str, right: Right) -> Key:
        return find(self._registry, principal, kid, right)

    def _find_alone(self, principal: Principal, kid: str, right: Right) -> Key:
        """Return the key, which no key set has."""
        key = self._find(principal, kid, right)
        require_alone(self._registry, key)
        return key

    def _whole(self, key: Key, states: Collection[State] = VISIBLE) -> Key:
        whole = self._registry.whole(key.kid, states)
        if whole is None:  # it has been destroyed meanwhile
            raise KeyNotFound
        return whole

    def _described(self, key: Key) -> dict[str, Any]:
        key = self._whole(key, LASTING)
        return describe_fully(key, self._registry.pages.remarks_on([key.kid]).get(key.kid, _NONE))


def _audited(value: Any) -> str | None:
    return value.isoformat() if isinstance(value, datetime) else value


def require_grantee(name: str) -> None:
    """Raise ``BadRequest`` unless ``name`` is that of a principal, or of everybody."""
    if not (name == EVERYBODY or is_principal(name)):
        raise BadRequest("A grant is to a principal, like token:ci, or to '*' for everybody")


def _columns(key: Key, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns to write; raise ``CryptoFailure`` if its state does not permit them."""
    now = datetime.now(UTC)
    state = State(values.get("state", key.state))
    if state not in _CHANGES[key.state]:
        raise CryptoFailure(f"A {key.state} key cannot become {state}")
    expires_at = values.get("expires_at", key.expires_at)
    if "state" in values and state is State.ACTIVE and expires_at and expires_at <= now:
        raise CryptoFailure("An expired key can be active again only with another expiry")
    is_over = state is not State.ACTIVE
    columns = dict(values) | {"state": state}
    columns["deactivated_at"] = (key.deactivated_at or now) if is_over else None
    return columns
