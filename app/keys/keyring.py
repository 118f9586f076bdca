"""The use cases: find the key, check the right, check that it fits, operate in the token."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID, uuid4

import hsm
from app import current_request
from app.errors import (
    BadRequest,
    Forbidden,
    RegistryUnavailable,
    RequestInProgress,
    RequestReused,
)
from app.idempotency import IdempotentRequest
from app.jose import encoding
from app.jwk import write_public
from app.keys import access
from app.keys.access import Access
from app.keys.budget import EncryptionBudget
from app.registry import AlreadyRequested, Key, Origin, Registry, Residency, State
from app.rights import Principal, Right
from app.schemas.fields import Header
from app.schemas.keys import KeyRequest
from hsm import (
    CryptoFailure,
    Hsm,
    HsmError,
    KeyNotFound,
    KeyRef,
    KeySpec,
    TokenUnavailable,
    UnsupportedAlgorithm,
)

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_SIGN_VERIFY: Final = ["sign", "verify"]
_ENCRYPT_DECRYPT: Final = ["encrypt", "decrypt"]
_RECONCILE_WAIT_SECONDS: Final = 2.0
_SETTLE_WAIT_SECONDS: Final = 0.2
_GRACE: Final = timedelta(minutes=1)
_OTHER_HOST_GRACE: Final = timedelta(minutes=10)
_FIRST_ANSWER_SECONDS: Final = 10.0
_PUBLISHED: Final = "jwks"
_NONE: Final[Mapping[str, str]] = MappingProxyType({})

Record = Callable[[UUID], None]


def _no_record(_kid: UUID) -> None:
    pass


class Reconciliation(NamedTuple):
    """What ``reconcile`` found: kids finished or undone, rows without key, keys without row."""

    settled: list[UUID]
    missing: list[UUID]
    unknown: list[UUID]


class Keyring:
    """What a principal may do with keys named by kid.

    Every method raises ``KeyNotFound``, then ``Forbidden``, then ``CryptoFailure`` if the key does
    not fit; ``TokenUnavailable`` or ``RegistryUnavailable`` if one of them cannot answer now.
    """

    def __init__(
        self, registry: Registry, token: Hsm, *, state_dir: Path, publishes: bool = True
    ) -> None:
        self._registry = registry
        self._access = Access(registry.find_for)
        self._hsm = token
        self._budget = EncryptionBudget(registry)
        self._tag = _PUBLISHED if publishes else None
        # Held, shared, while a row and its objects differ. The kernel frees it at death, so that
        # whoever holds it alone knows that nothing is under way on this host.
        self._unfinished = state_dir / "unfinished.lock"

    def create(
        self, principal: Principal, request: KeyRequest, idempotent: IdempotentRequest | None = None
    ) -> dict[str, Any]:
        """Generate or import a key; return its description, or what the first request got."""
        _require_creator(principal)
        return self._once(idempotent, lambda: self._create(principal, request, idempotent))

    def _create(
        self, principal: Principal, request: KeyRequest, idempotent: IdempotentRequest | None
    ) -> dict[str, Any]:
        spec, material = request.spec, request.material
        key = Key(
            kid=uuid4(),
            kid_public=uuid4() if spec.kind.is_pair and material is None else None,
            owner=principal,
            spec=spec,
            origin=Origin.GENERATED if material is None else Origin.IMPORTED,
            residency=Residency.TOKEN if material is None else Residency.PROCESS,
        )
        self._hsm.offers()  # while the token is away not even a row is made
        if request.prove is not None:
            self._hsm.in_lane(request.prove)
        with self._two_phases(key, idempotent):
            public = self._make(key, material)
            if material is not None and not self._hsm.works(key.ref):
                raise BadRequest("The key material is refused: a trial of it in the token failed")
            self._registry.activate(key.kid, write_public(public) if public else None)
        return describe(key)

    def destroy(self, principal: Principal, kid: str) -> None:
        """Destroy both halves of a key, whichever one ``kid`` names."""
        key = self._access.find(principal, kid, Right.DESTROY)
        self._hsm.offers()  # while the token is away the key stays as it is
        with self._unfinished_here():
            if not self._registry.mark_destroyed(key.kid):
                raise KeyNotFound
            current_request.change(destroyed=str(key.kid))  # whatever is answered
            self._hsm.destroy(key.ref)
            self._registry.remove(key.kid)

    def unwrap(
        self,
        principal: Principal,
        header: Header,
        encrypted_key: bytes,
        idempotent: IdempotentRequest | None = None,
    ) -> dict[str, Any]:
        """Keep the CEK of ``encrypted_key`` as a key; return its description, as ``create``."""
        key = self._access.find(principal, header.kid, Right.UNWRAP)
        _require_creator(principal)
        return self._once(
            idempotent, lambda: self._unwrap(principal, key, header, encrypted_key, idempotent)
        )

    def _unwrap(
        self,
        principal: Principal,
        key: Key,
        header: Header,
        encrypted_key: bytes,
        idempotent: IdempotentRequest | None,
    ) -> dict[str, Any]:
        self._require_fit(key, header.alg)
        _require_on_curve(key, header.agreement)
        residency = self._hsm.offers()[header.alg].with_enc(header.enc).residency
        bits = 8 * hsm.CONTENT_ENCRYPTIONS[header.enc].key_bytes
        cek = Key(
            kid=uuid4(),
            kid_public=None,
            owner=principal,
            spec=KeySpec(kty="oct", alg=header.enc, bits=bits),
            origin=Origin.UNWRAPPED,
            residency=Residency(residency),
        )
        with self._two_phases(cek, idempotent):
            self._use(
                key,
                lambda: self._hsm.unwrap(
                    key.ref, header.alg, header.enc, encrypted_key, cek.ref, header.agreement
                ),
            )
            self._registry.activate(cek.kid, None)
        return describe(cek)

    def take_back(self, kid: UUID) -> None:
        """Undo the creation of a key that nobody has been told of, nor will be."""
        key = self._registry.find(kid)
        if key is not None:
            with self._unfinished_here():
                self._registry.idempotency.forget(key.kid)
                self._undo(key.ref)

    @contextmanager
    def together(self, principal: Principal, kids: Iterable[str]) -> Iterator["Keyring"]:
        """Lend a keyring for many operations of ``principal``, in one ``with`` block.

        All its keys are read now, at once, and the operations share a session of the token.
        """
        those = copy(self)
        those._access = access.at_once(self._registry, principal, kids)  # noqa: SLF001  # ours
        with self._hsm.together():
            yield those

    def encrypt(  # noqa: PLR0913  # the members of the request
        self,
        principal: Principal,
        *,
        kid: str,
        alg: str,
        enc: str,
        data: bytes,
        aad: str | None,
        apu: str | None = None,
        apv: str | None = None,
        media_types: Mapping[str, str] = _NONE,
    ) -> dict[str, Any]:
        """Return a flattened JWE (RFC 7516 §5.1); its header names the key that decrypts."""
        key = self._access.find(principal, kid, Right.ENCRYPT)
        self._require_fit(key, enc if alg == hsm.DIRECT else alg)
        _require_active(key)
        if alg == hsm.DIRECT and hsm.CONTENT_ENCRYPTIONS[enc].is_counted:
            self._budget.spend(key.kid)
        named = {"alg": alg, "enc": enc, "kid": kid if alg == hsm.DIRECT else str(key.kid)}

        def protected(epk: hsm.AgreementKey | None) -> str:
            agreed = {"epk": epk and write_public(epk), "apu": apu, "apv": apv}
            return _header({**_present(agreed), **media_types}, **named)

        made = self._use(
            key,
            lambda: self._hsm.encrypt(
                key.ref,
                alg,
                enc,
                data,
                lambda epk: encoding.additional_data(protected(epk), aad),
                hsm.Agreement(apu=encoding.decode(apu or ""), apv=encoding.decode(apv or "")),
            ),
        )
        jwe = {
            "protected": protected(made.epk),
            "encrypted_key": made.encrypted_key,
            **made.sealed._asdict(),
        }
        return jwe if aad is None else jwe | {"aad": aad}

    def decrypt(
        self,
        principal: Principal,
        header: Header,
        *,
        encrypted_key: bytes,
        sealed: hsm.Sealed,
        aad: str | None,
    ) -> bytes:
        """Return the plaintext (RFC 7516 §5.2)."""
        key = self._access.find(principal, header.kid, Right.DECRYPT)
        self._require_fit(key, header.enc if header.alg == hsm.DIRECT else header.alg)
        _require_on_curve(key, header.agreement)
        additional_data = encoding.additional_data(header.protected, aad)
        return self._use(
            key,
            lambda: self._hsm.decrypt(
                key.ref,
                header.alg,
                header.enc,
                encrypted_key,
                sealed,
                additional_data,
                header.agreement,
            ),
        )

    def sign(
        self,
        principal: Principal,
        *,
        kid: str,
        alg: str,
        data: str,
        media_types: Mapping[str, str] = _NONE,
    ) -> dict[str, Any]:
        """Return a detached JWS; its header names the key that verifies (RFC 7515 §5.1)."""
        key = self._access.find(principal, kid, Right.SIGN)
        if kid == str(key.kid_public):
            raise CryptoFailure(
                "A public key cannot sign; use the kid of the pair, not its kid_public"
            )
        _require_permitted(key, alg)
        _require_active(key)
        protected = _header(media_types, alg=alg, kid=str(key.kid_public or kid))
        signing_input = encoding.signing_input(protected, data)
        signature = self._use(key, lambda: self._hsm.sign(key.ref, alg, signing_input))
        return {"protected": protected, "signature": signature}

    def verify(self, principal: Principal, header: Header, *, data: str, signature: bytes) -> bool:
        """Tell whether ``signature`` is one over ``data`` (RFC 7515 §5.2)."""
        key = self._access.find(principal, header.kid, Right.VERIFY)
        _require_permitted(key, header.alg)
        signing_input = encoding.signing_input(header.protected, data)
        return self._use(
            key, lambda: self._hsm.verify(key.ref, header.alg, signing_input, signature)
        )

    def mac(self, principal: Principal, *, kid: str, alg: str, data: bytes) -> bytes:
        """Return the MAC of ``data`` (RFC 7518 §3.2)."""
        key = self._access.find(principal, kid, Right.MAC)
        _require_permitted(key, alg)
        _require_active(key)
        return self._use(key, lambda: self._hsm.mac(key.ref, alg, data))

    def verify_mac(
        self, principal: Principal, *, kid: str, alg: str, data: bytes, mac: bytes
    ) -> bool:
        """Tell whether ``mac`` is the MAC of ``data``."""
        key = self._access.find(principal, kid, Right.MAC)
        _require_permitted(key, alg)
        return self._use(key, lambda: self._hsm.verify_mac(key.ref, alg, data, mac))

    def reconcile(self, *, dry_run: bool, record: Record = _no_record) -> Reconciliation:
        """Finish or undo what killed processes left, and tell what else differs.

        ``record`` is called with each kid whose objects are destroyed, before its row goes.
        A key without a row is never destroyed: it may be that of a registry restored too old.
        """
        with hsm.file_lock(self._unfinished):
            settled = self._unfinished_for(timedelta(0))
            if not dry_run:
                self._undo_all(settled, record)
            missing, unknown = self._hsm.differences(self._registry.specs())
            return Reconciliation(
                settled=sorted(settled),
                missing=sorted(missing - settled.keys()),
                unknown=sorted(unknown),
            )

    def settle(self, record: Record = _no_record) -> list[UUID]:
        """Finish or undo what was begun minutes ago and not ended; return the kids.

        ``record`` is called with each kid whose objects are destroyed, before its row goes.
        Raises ``TokenUnavailable`` if keys are being made or destroyed: then it can wait.
        """
        if not self._unfinished_for(_GRACE):
            return []
        with hsm.file_lock(self._unfinished, wait_seconds=_SETTLE_WAIT_SECONDS):
            settled = self._unfinished_for(_GRACE)
            self._undo_all(settled, record)
            return sorted(settled)

    def _unfinished_for(self, grace: timedelta) -> Mapping[UUID, KeyRef]:
        now = datetime.now(UTC)
        return self._registry.unfinished(here_before=now - grace, before=now - _OTHER_HOST_GRACE)

    def _undo_all(self, unfinished: Mapping[UUID, KeyRef], record: Record) -> None:
        for ref in unfinished.values():
            self._undo(ref, record)

    def _once(
        self, idempotent: IdempotentRequest | None, create: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return what was answered to the same request before, or what ``create`` returns."""
        if idempotent is None:
            return create()
        answer = self._first_answer(idempotent)
        if answer is not None:
            return answer
        try:
            return create()
        except AlreadyRequested:  # by another one, at the same time
            answer = self._first_answer(idempotent)
        if answer is None:  # and in vain
            raise RequestInProgress
        return answer

    def _first_answer(self, idempotent: IdempotentRequest) -> dict[str, Any] | None:
        deadline = time.monotonic() + _FIRST_ANSWER_SECONDS
        while (first := self._registry.idempotency.find(idempotent)) is not None:
            if first.fingerprint != idempotent.fingerprint:
                raise RequestReused
            if first.is_made:
                current_request.name(kid=first.answer["kid"])
                if first.is_gone:
                    raise KeyNotFound
                return dict(first.answer)
            if time.monotonic() > deadline:
                raise RequestInProgress
            time.sleep(0.05)
        return None

    def _use(self, key: Key, operation: Callable[[], Result]) -> Result:
        """Run ``operation``; the registry has the last word on whether ``key`` exists.

        Whatever a token says of a key that is being destroyed, it is not found; a key that the
        token lacks, and the registry does not, is not available.
        """
        try:
            result = operation()
        except HsmError as error:
            self._require_alive(key)
            if not isinstance(error, KeyNotFound):
                raise
            logger.warning("key %s is in the registry and not on the token", key.kid)
            raise TokenUnavailable("the token does not hold the key") from None
        if result is False:  # not valid, or not there any more
            self._require_alive(key)
        return result

    def _require_fit(self, key: Key, algorithm: str) -> None:
        """Refuse what the key is not for, and what the token lacks on its curve alone."""
        _require_permitted(key, algorithm)
        crv = key.spec.crv
        reason = self._hsm.offers()[algorithm].refusal(crv) if crv else None
        if reason is not None:
            raise UnsupportedAlgorithm.not_offered(algorithm, reason)

    def _require_alive(self, key: Key) -> None:
        if self._registry.find(key.kid) is None:
            raise KeyNotFound from None

    @contextmanager
    def _two_phases(self, key: Key, idempotent: IdempotentRequest | None) -> Iterator[None]:
        """Add ``key`` as pending for one ``with`` block, which activates it; undo after errors."""
        tag = self._tag if key.kid_public else None
        with self._unfinished_here():
            self._registry.insert(key, tag=tag, request=idempotent, answer=describe(key))
            try:
                yield
            except BaseException:
                with suppress(HsmError, RegistryUnavailable):  # then ``reconcile`` will
                    self._undo(key.ref)
                raise
            current_request.made(key.kid)

    def _unfinished_here(self) -> AbstractContextManager[None]:
        """Keep ``reconcile`` out for one ``with`` block; 503 while it is at work."""
        return hsm.file_lock(self._unfinished, shared=True, wait_seconds=_RECONCILE_WAIT_SECONDS)

    def _undo(self, ref: KeyRef, record: Record = _no_record) -> None:
        self._registry.abandon(ref.kid)
        self._hsm.destroy(ref)
        record(ref.kid)  # a row that stays is found again, and so is one without a record
        self._registry.remove(ref.kid)

    def _make(self, key: Key, material: bytes | hsm.PrivateKey | None) -> hsm.PublicKey | None:
        if material is None:
            return self._hsm.generate(key.ref).public
        return self._hsm.import_key(key.ref, material).public


def describe(key: Key) -> dict[str, Any]:
    """Return what a caller is told of a new key (wire contract §1)."""
    members = {
        "kid": str(key.kid),
        "kid_public": str(key.kid_public) if key.kid_public else None,
        "kty": key.spec.kty,
        "alg": key.spec.alg,
        "crv": key.spec.crv,
        "key_ops": key_ops(key.spec.alg),
    }
    absent = {name for name in ("alg", "crv") if members[name] is None}
    if not key.spec.kind.is_pair:
        absent.add("kid_public")
    return {name: value for name, value in members.items() if name not in absent}


def key_ops(alg: str | None) -> list[str]:
    """Return what a key of ``alg`` is said to be for (wire contract §3)."""
    signs = alg is None or alg in hsm.SIGNATURES or alg in hsm.MACS
    return _SIGN_VERIFY if signs else _ENCRYPT_DECRYPT


def _header(others: Mapping[str, Any], **names: str) -> str:
    if not others:
        return encoding.plain_header(**names)
    return encoding.protected_header(**names, **others)


def _require_creator(principal: Principal) -> None:
    if not principal.may_create:
        raise Forbidden


def _require_permitted(key: Key, algorithm: str) -> None:
    if not key.spec.permits(algorithm):
        raise CryptoFailure(f"The key does not permit {algorithm}")


def _require_on_curve(key: Key, agreement: hsm.Agreement) -> None:
    if agreement.epk and write_public(agreement.epk)["crv"] != key.spec.crv:
        raise CryptoFailure("Header member 'epk' is not on the curve of the key")


def _present(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _require_active(key: Key) -> None:
    if key.state is not State.ACTIVE:
        raise CryptoFailure(f"The key is {key.state}")
