"""CEKs: made, unwrapped or agreed on for one message, as session objects.

The paths of a CEK (RFC 7516 §5.1, §5.2). ``TokenPath``: it is never outside the token. On all
others it, or the key that wraps it, passes through the memory of the process for that one message,
and the private key works in the token. ``ProcessPath``: the padding of RSA-OAEP is decoded here.
``AgreementPath``: the CEK is what Concat KDF makes of ECDH. ``WrappedAgreementPath``: that is the
key which wraps the CEK.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import Enum, auto
from typing import Any, ClassVar, Final, Literal, NamedTuple

from pkcs11 import Mechanism, MechanismFlag, ObjectClass, PKCS11Error

from hsm import agreement, content, oaep, peer
from hsm.agreement import Agreement
from hsm.algorithms import (
    AES,
    CEK_WRAPPING,
    CONTENT_ENCRYPTIONS,
    ContentEncryption,
    KeyAgreement,
    KeyManagement,
    KeySpec,
    KeyWrapping,
    RsaOaep,
)
from hsm.faults import Fault, fault_of
from hsm.handles import Handle, Key, bind, temporary
from hsm.material import AgreementKey, curve_of
from hsm.session import Session
from hsm.templates import Templates

# The proof has shown that the token unwraps a good one: whatever it says of another is its word
# for bad padding or an odd size, and must look the same.
_NOT_UNWRAPPED: Final = (Fault.REJECTED, Fault.AMBIGUOUS, Fault.POLICY, Fault.BUG)
_WRAPPING_OVERHEAD_BYTES: Final = 8  # RFC 3394 §2.2.1
_ANY_AAD: Final = b"."
_WRAPPING: Final = {"mechanism": CEK_WRAPPING}
_NOTHING: Final = Agreement()
_SHORTEST_BYTES: Final = 2048 // 8
_LONGEST_BYTES: Final = 4096 // 8


class Outcome(Enum):
    """How an unwrapping ended; only ``/keys/unwrap`` may tell it to anybody."""

    RECOVERED = auto()
    WRONG_SIZE = auto()
    REJECTED = auto()


class Unwrapped(NamedTuple):
    """``cek`` is a random one unless the outcome is ``RECOVERED`` (RFC 7516 §11.5)."""

    cek: Key
    outcome: Outcome


class Wrapped(NamedTuple):
    """A new CEK, and how its recipient gets it: from ``encrypted_key``, ``epk`` or both."""

    cek: Key
    encrypted_key: bytes
    epk: AgreementKey | None = None


def generate_kek(session: Session, templates: Templates) -> Key:
    """Make the key under which CEKs are measured and kept: a session object, never stored.

    Made on the anchor session, which outlives all others.
    """
    kek = session.generate_key(
        AES.key_type,
        256,
        capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP,
        mechanism=AES.generation,
        template=templates.kek(),
    )
    return bind(session, kek)


class Path(ABC):
    """What all paths offer; ``residency`` says where a CEK is.

    ``takes_bare_rsa`` says that the token has to perform the bare RSA operation.
    """

    residency: ClassVar[Literal["token", "process"]]
    takes_bare_rsa: ClassVar[bool] = False

    def __init__(self, templates: Templates, kek: Handle) -> None:
        self._templates = templates
        self._kek = kek

    @abstractmethod
    def wrapped(
        self, public: Key, row: Any, enc: ContentEncryption, said: Agreement = _NOTHING
    ) -> AbstractContextManager[Wrapped]:
        """Give a new CEK for one ``with`` block; ``public`` is the shared key if there is one."""

    @abstractmethod
    def unwrapped(
        self,
        private: Key,
        row: Any,
        enc: ContentEncryption,
        encrypted_key: bytes,
        said: Agreement = _NOTHING,
    ) -> AbstractContextManager[Unwrapped]:
        """Give the CEK of a message for one ``with`` block, or a random one in its place.

        Bad padding and a CEK of the wrong size take the same steps as a good one.
        """

    def works(self, session: Session) -> bool:
        """Tell whether the key-encryption key is still there: it wraps a throw-away CEK."""
        with temporary(self._generate(session, CONTENT_ENCRYPTIONS["A256GCM"])) as cek:
            self.kek(session).wrap_key(cek, **_WRAPPING)
        return True

    def kek(self, session: Session) -> Key:
        """Return the key-encryption key in the hands of ``session``."""
        return Key(session, self._kek)

    def _generate(self, session: Session, enc: ContentEncryption) -> Key:
        cek = session.generate_key(
            AES.key_type,
            8 * enc.key_bytes,
            **self._templates.secret_generation([enc], extractable=True),
        )
        return bind(session, cek)

    def _import(self, session: Session, enc: ContentEncryption, value: bytes | bytearray) -> Key:
        spec = KeySpec(kty="oct", alg=enc.name)
        template = self._templates.imported_secret(None, spec, value, extractable=True)
        return bind(session, session.create_object(template))


class TokenPath(Path):
    """The CEK stays in the token."""

    residency = "token"

    @contextmanager
    def wrapped(
        self, public: Key, row: KeyManagement, enc: ContentEncryption, said: Agreement = _NOTHING
    ) -> Iterator[Wrapped]:
        """See ``Path``."""
        with temporary(self._generate(public.lent, enc)) as cek:
            yield Wrapped(cek, public.wrap_key(cek, **_mechanism(row)))

    @contextmanager
    def unwrapped(
        self,
        private: Key,
        row: KeyManagement,
        enc: ContentEncryption,
        encrypted_key: bytes,
        said: Agreement = _NOTHING,
    ) -> Iterator[Unwrapped]:
        """See ``Path``. The substitute is made before the unwrapping."""
        with temporary(self._generate(private.lent, enc)) as substitute:
            unwrapped = self._unwrap(private, row, enc, encrypted_key)
            # A good padding makes an object, so a bad one does too: the times must not differ.
            with temporary(unwrapped or self._generate(private.lent, enc)) as cek:
                is_of_size = self._is_of_size(cek, enc)
                if unwrapped is None:
                    yield Unwrapped(substitute, Outcome.REJECTED)
                elif not is_of_size:
                    yield Unwrapped(substitute, _wrong_size(row))
                else:
                    yield Unwrapped(cek, Outcome.RECOVERED)

    def _unwrap(
        self, private: Key, row: KeyManagement, enc: ContentEncryption, encrypted_key: bytes
    ) -> Key | None:
        try:
            cek = private.unwrap_key(
                ObjectClass.SECRET_KEY,
                AES.key_type,
                encrypted_key,
                capabilities=enc.usages,
                template=self._templates.secret([enc], extractable=True),
                **_mechanism(row),
            )
        except PKCS11Error as error:
            if fault_of(error) not in _NOT_UNWRAPPED:
                raise
            return None
        return bind(private.lent, cek)

    def _is_of_size(self, cek: Key, enc: ContentEncryption) -> bool:
        """Measure a CEK that the token will not measure: unwrapped keys have no CKA_VALUE_LEN.

        Only keys of 16, 24 and 32 bytes encrypt, and a wrapped key is 8 bytes longer than the key
        rounded up to 8: together they give the size.
        """
        try:
            content.encrypt(cek, enc, b"", _ANY_AAD)
            wrapped = self.kek(cek.lent).wrap_key(cek, **_WRAPPING)
        except PKCS11Error as error:
            if fault_of(error) not in (Fault.POLICY, Fault.BUG):
                raise
            return False
        return len(wrapped) == enc.key_bytes + _WRAPPING_OVERHEAD_BYTES


class ProcessPath(Path):
    """The CEK of a message passes through the process; the private key does not."""

    residency = "process"
    takes_bare_rsa = True

    @contextmanager
    def wrapped(
        self, public: Key, row: RsaOaep, enc: ContentEncryption, said: Agreement = _NOTHING
    ) -> Iterator[Wrapped]:
        """See ``Path``."""
        value = public.lent.generate_random(8 * enc.key_bytes)
        encrypted_key = peer.encrypted_for(public.public, row, value)
        with temporary(self._import(public.lent, enc, value)) as cek:
            yield Wrapped(cek, encrypted_key)

    @contextmanager
    def unwrapped(
        self,
        private: Key,
        row: RsaOaep,
        enc: ContentEncryption,
        encrypted_key: bytes,
        said: Agreement = _NOTHING,
    ) -> Iterator[Unwrapped]:
        """See ``Path``. The substitute is made before the RSA operation."""
        substitute = private.lent.generate_random(8 * enc.key_bytes)
        encoded = self._encoded_message(private, encrypted_key)
        decoded = oaep.decode(encoded, row.hash, substitute)
        with temporary(self._import(private.lent, enc, decoded.cek)) as cek:
            decoded.cek[:] = bytes(len(decoded.cek))
            if not decoded.is_valid:
                yield Unwrapped(cek, Outcome.REJECTED)
            elif not decoded.is_of_size:
                yield Unwrapped(cek, Outcome.WRONG_SIZE)
            else:
                yield Unwrapped(cek, Outcome.RECOVERED)

    @staticmethod
    def _encoded_message(private: Key, encrypted_key: bytes) -> bytes:
        """Return EM; random bytes, as many, if ``encrypted_key`` is no number below the modulus."""
        octets = min(max(len(encrypted_key), _SHORTEST_BYTES), _LONGEST_BYTES)
        substitute: bytes = private.lent.generate_random(8 * octets)
        try:
            return bytes(private.decrypt(encrypted_key, mechanism=Mechanism.RSA_X_509))
        except PKCS11Error as error:
            if fault_of(error) not in _NOT_UNWRAPPED:
                raise
            return substitute


class AgreementPath(Path):
    """The CEK is what both sides agree on; Z stays in the token."""

    residency = "process"

    @contextmanager
    def wrapped(
        self, public: Key, row: KeyAgreement, enc: ContentEncryption, said: Agreement = _NOTHING
    ) -> Iterator[Wrapped]:
        """See ``Path``. The recipient's key is the other side of the ephemeral one."""
        recipient = agreement.agreement_key(public.public)
        curve = curve_of(recipient)
        with (
            agreement.ephemeral(public.lent, self._templates, row, curve) as pair,
            self._agreed(pair.private, row, enc, said._replace(epk=recipient)) as agreed,
            self._given(agreed, row, enc) as given,
        ):
            yield given._replace(epk=pair.public)

    @contextmanager
    def unwrapped(
        self,
        private: Key,
        row: KeyAgreement,
        enc: ContentEncryption,
        encrypted_key: bytes,
        said: Agreement = _NOTHING,
    ) -> Iterator[Unwrapped]:
        """See ``Path``. Whatever is wrong, both sides agree on something."""
        with (
            self._agreed(private, row, enc, said) as agreed,
            self._taken(agreed, row, enc, encrypted_key) as taken,
        ):
            yield taken

    @contextmanager
    def _agreed(
        self, private: Key, row: KeyAgreement, enc: ContentEncryption, said: Agreement
    ) -> Iterator[Key]:
        value = agreement.derived(private, self._templates, row, enc, said)
        try:
            agreed = self._import_agreed(private.lent, row, enc, value)
        finally:
            value[:] = bytes(len(value))
        with temporary(agreed):
            yield agreed

    def _import_agreed(
        self, session: Session, _row: KeyAgreement, enc: ContentEncryption, value: bytearray
    ) -> Key:
        return self._import(session, enc, value)

    @contextmanager
    def _given(self, agreed: Key, _row: KeyAgreement, _enc: ContentEncryption) -> Iterator[Wrapped]:
        yield Wrapped(agreed, b"")

    @contextmanager
    def _taken(
        self, agreed: Key, _row: KeyAgreement, _enc: ContentEncryption, _encrypted_key: bytes
    ) -> Iterator[Unwrapped]:
        yield Unwrapped(agreed, Outcome.RECOVERED)


class WrappedAgreementPath(AgreementPath):
    """What both sides agree on wraps the CEK, as on ``TokenPath``."""

    def __init__(self, templates: Templates, kek: Handle) -> None:
        super().__init__(templates, kek)
        self._wrapping = TokenPath(templates, kek)

    def _import_agreed(
        self, session: Session, row: KeyAgreement, _enc: ContentEncryption, value: bytearray
    ) -> Key:
        spec = KeySpec(kty="oct", alg=_wrapping(row).name)
        return bind(
            session, session.create_object(self._templates.imported_secret(None, spec, value))
        )

    @contextmanager
    def _given(self, agreed: Key, row: KeyAgreement, enc: ContentEncryption) -> Iterator[Wrapped]:
        with self._wrapping.wrapped(agreed, _wrapping(row), enc) as wrapped:
            yield wrapped

    @contextmanager
    def _taken(
        self, agreed: Key, row: KeyAgreement, enc: ContentEncryption, encrypted_key: bytes
    ) -> Iterator[Unwrapped]:
        with self._wrapping.unwrapped(agreed, _wrapping(row), enc, encrypted_key) as unwrapped:
            yield unwrapped


def paths(row: KeyManagement) -> tuple[type[Path], ...]:
    """Return the paths that CEKs of ``row`` can take, the best first."""
    match row:
        case RsaOaep():
            return (TokenPath, ProcessPath)
        case KeyAgreement(wrapping=None):
            return (AgreementPath,)
        case KeyAgreement():
            return (WrappedAgreementPath,)
        case _:
            return (TokenPath,)


def _wrapping(row: KeyAgreement) -> KeyWrapping:
    assert row.wrapping is not None  # noqa: S101  # see ``paths``
    return row.wrapping


def _wrong_size(row: KeyManagement) -> Outcome:
    return Outcome.WRONG_SIZE if row.tells_size else Outcome.REJECTED


def _mechanism(row: KeyManagement) -> dict[str, object]:
    return {"mechanism": row.mechanism, "mechanism_param": row.param}
