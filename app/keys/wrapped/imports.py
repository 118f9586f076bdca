"""Imports of all forms: keys that come in wrapped, and those that the service may be shown."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import hsm
from app import current_request
from app.errors import Forbidden, RegistryUnavailable
from app.idempotency import IdempotentRequest
from app.jwk import type_of, write_public
from app.keys.creation import KeyCreation, require_creator
from app.keys.description import describe_one
from app.keys.phases.making import Making
from app.kid import is_kid
from app.registry import Key, Origin, Residency, State, Tagging
from app.rights import Principal
from app.schemas.keys import KeyRequest, WrappedMaterial
from app.schemas.wrapped import WrappedKey
from hsm import (
    CryptoFailure,
    KeyNotFound,
    KeyRef,
    KeySpec,
    Made,
    TokenUnavailable,
    WrappedKeyRefused,
)

_LIFETIME: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyImports:
    """How principals have keys imported, wrapped or, if the service ``takes_plain`` ones, as JWKs.

    Errors are those of ``KeyCreation``.
    """

    creation: KeyCreation
    takes_plain: bool

    def wrapping_key(self, principal: Principal) -> dict[str, Any]:
        """Make a key to wrap for, which is there for one import or a day; return what it is."""
        require_creator(principal)
        creation, expires = self.creation, datetime.now(UTC) + _LIFETIME
        spec = creation.hsm.imports.wrapping_spec()
        key = Key(
            kid=uuid4(),
            kid_public=None,
            owner=principal,
            spec=spec,
            origin=Origin.GENERATED,
            residency=Residency.TOKEN,
            destroy_at=expires,
        )
        creation.quota.require(principal)
        with creation.phases.creation(key, Tagging()):
            made = creation.hsm.generate(key.ref)
            assert made.public is not None  # noqa: S101  # it is a pair
            jwk = write_public(made.public)
            if not creation.registry.postponed.begin_wrapping(made.ref, jwk):
                raise RegistryUnavailable
        current_request.made(key.kid)
        named = {"kid": str(key.kid), "use": "enc", "alg": spec.alg}
        return {"kid": key.kid, "alg": spec.alg, "jwk": jwk | named, "expires": expires}

    def create(
        self, principal: Principal, request: KeyRequest, idempotent: IdempotentRequest | None = None
    ) -> dict[str, Any]:
        """Import or generate a key; return its description, or what the first request got."""
        require_creator(principal)
        if request.wrapped is not None:
            make = partial(self._unwrap, principal, request, request.wrapped, idempotent)
        elif request.material is not None and not self.takes_plain:
            raise CryptoFailure("Keys are only imported wrapped here: see POST /wrapping-keys")
        else:
            make = partial(self.creation.make, principal, request, idempotent)
        return self.creation.once(idempotent, make)

    def _unwrap(
        self,
        principal: Principal,
        request: KeyRequest,
        material: WrappedMaterial,
        idempotent: IdempotentRequest | None,
    ) -> dict[str, Any]:
        creation, wrapped = self.creation, material.wrapped
        creation.hsm.imports.require(request.spec)
        wrapping = self._wrapping_key(principal, wrapped)
        spec = _measured(request.spec, wrapping, wrapped.ciphertext)
        key = creation.new_key(principal, replace(request, spec=spec), Origin.IMPORTED_WRAPPED)
        creation.quota.require(principal, freed=1)

        def make(new: KeyRef) -> Made:
            octets = wrapped.ciphertext
            try:
                return creation.hsm.imports.take(wrapping.ref, new, octets, material.public)
            except KeyNotFound:
                self._wrapping_key(principal, wrapped)  # another import may have used it
                raise TokenUnavailable("the token does not hold the wrapping key") from None

        making = Making(
            keys=[key],
            make=make,
            tagging=creation.tagging(key, request.labels),
            request=idempotent,
            answer=partial(describe_one, [key]),
            wrapping=wrapping,
        )
        return creation.add(making)

    def _wrapping_key(self, principal: Principal, wrapped: WrappedKey) -> Key:
        """Return the key that it was wrapped for, which is of whoever had that one made."""
        kid, states = wrapped.kid, (State.WRAPPING,)
        current_request.name(kid=kid)
        key = self.creation.registry.whole(UUID(kid), states) if is_kid(kid) else None
        if key is None or key.destroy_at is None or key.destroy_at <= datetime.now(UTC):
            raise KeyNotFound
        if key.owner != principal:
            raise Forbidden
        if wrapped.alg not in {None, key.spec.alg}:
            raise CryptoFailure(f"The wrapping key is for {key.spec.alg}")
        return key


def _measured(spec: KeySpec, wrapping: Key, ciphertext: bytes) -> KeySpec:
    """Return ``spec`` with the length of a secret key, as the wrapping tells it."""
    sizes = None if spec.kind.is_pair else type_of(spec).sizes(spec.alg)
    if sizes is None:
        return spec
    bits = hsm.secret_bits(wrapping.spec, ciphertext)
    if bits not in sizes.imported:
        raise WrappedKeyRefused
    return replace(spec, bits=bits)
