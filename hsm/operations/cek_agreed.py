"""CEKs of ECDH-ES (RFC 7518 §4.6): agreed on, or wrapped by what is agreed on.

``AgreementPath``: the CEK is what Concat KDF makes of ECDH. ``WrappedAgreementPath``: that is the
key which wraps the CEK. ``ShownAgreementPath``: the CEK is shown when it has been unwrapped.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from hsm.algorithms.families import ContentEncryption, KeyAgreement, KeyWrapping
from hsm.algorithms.kinds import curve_of
from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.handles import Handle, bind, temporary
from hsm.cryptoki.keys import Keys
from hsm.messages import NO_AGREEMENT, Agreement
from hsm.operations import ecdh
from hsm.operations.cek import CekPath, NewCek, Outcome, TokenPath, Unwrapped, Wrapped
from hsm.operations.cek_splitting import SplittingPath


class AgreementPath(CekPath):
    """The CEK is what both sides agree on; Z stays in the token."""

    residency = "process"

    def carries(self, enc: ContentEncryption) -> bool:
        """See ``CekPath``."""
        return True

    @contextmanager
    def wrapped(
        self,
        keys: Keys,
        row: KeyAgreement,
        enc: ContentEncryption,
        agreement: Agreement = NO_AGREEMENT,
    ) -> Iterator[Wrapped]:
        """See ``CekPath``."""
        with (
            self._agreed_alone(keys, row, enc, agreement) as (agreed, made),
            self._wrapped(agreed, row, enc) as wrapped,
        ):
            yield wrapped._replace(agreement=made)

    @contextmanager
    def _agreed_alone(
        self, keys: Keys, row: KeyAgreement, enc: ContentEncryption, agreement: Agreement
    ) -> Iterator[tuple[Keys, Agreement]]:
        """Give what the sender agrees on; the recipient's key is the other side's."""
        recipient = ecdh.agreement_key(keys.public.numbers)
        curve = curve_of(recipient)
        with (
            ecdh.ephemeral(keys, self._templates, row, curve) as pair,
            self._agreed(pair.keys, row, enc, agreement._replace(epk=recipient)) as agreed,
        ):
            yield agreed, agreement._replace(epk=pair.public)

    @contextmanager
    def unwrapped(
        self,
        keys: Keys,
        row: KeyAgreement,
        enc: ContentEncryption,
        encrypted_key: bytes,
        agreement: Agreement = NO_AGREEMENT,
    ) -> Iterator[Unwrapped]:
        """See ``CekPath``. Whatever is wrong, both sides agree on something."""
        with (
            self._agreed(keys, row, enc, agreement) as agreed,
            self._unwrapped(agreed, row, enc, encrypted_key) as unwrapped,
        ):
            yield unwrapped

    @contextmanager
    def _agreed(
        self, keys: Keys, row: KeyAgreement, enc: ContentEncryption, agreement: Agreement
    ) -> Iterator[Keys]:
        value = ecdh.derived(keys.private, self._templates, row, enc, agreement)
        with ExitStack() as stack:
            try:
                imported = self._imported_agreed(keys, row, enc, value)
                agreed = stack.enter_context(imported)
            finally:
                value[:] = bytes(len(value))
            yield agreed

    def _imported_agreed(
        self, keys: Keys, _row: KeyAgreement, enc: ContentEncryption, value: bytearray
    ) -> AbstractContextManager[Keys]:
        return self._imported(keys, enc, value)

    @contextmanager
    def _wrapped(
        self, agreed: Keys, _row: KeyAgreement, _enc: ContentEncryption
    ) -> Iterator[Wrapped]:
        yield Wrapped(agreed, b"")

    @contextmanager
    def _unwrapped(
        self,
        agreed: Keys,
        _row: KeyAgreement,
        _enc: ContentEncryption,
        _encrypted_key: bytes,
    ) -> Iterator[Unwrapped]:
        yield Unwrapped(agreed, Outcome.RECOVERED)


class WrappedAgreementPath(AgreementPath):
    """What both sides agree on wraps the CEK, as a shared key does."""

    def __init__(self, templates: Templates, kek: Handle) -> None:
        super().__init__(templates, kek)
        self._paths = (TokenPath(templates, kek), SplittingPath(templates, kek))

    @contextmanager
    def _imported_agreed(
        self, keys: Keys, row: KeyAgreement, _enc: ContentEncryption, value: bytearray
    ) -> Iterator[Keys]:
        template = self._templates.imported_secret(None, _wrapping(row), value)
        with temporary(bind(keys.session, keys.session.create_object(template))) as key:
            yield Keys(keys.session, keys.canary, (key,))

    def wrap(
        self,
        keys: Keys,
        row: KeyAgreement,
        enc: ContentEncryption,
        cek: NewCek,
        agreement: Agreement,
    ) -> Wrapped:
        """See ``CekPath``."""
        with self._agreed_alone(keys, row, enc, agreement) as (agreed, made):
            wrapped = self._path(enc).wrap(agreed, _wrapping(row), enc, cek, made)
        return wrapped._replace(agreement=made)

    def needs_value(self, enc: ContentEncryption) -> bool:
        """See ``CekPath``."""
        return self._path(enc).needs_value(enc)

    def showing(self) -> CekPath:
        """See ``CekPath``."""
        return ShownAgreementPath(self._templates, self._kek)

    def _path(self, enc: ContentEncryption) -> CekPath:
        return next(path for path in self._paths if path.carries(enc))

    @contextmanager
    def _wrapped(
        self, agreed: Keys, row: KeyAgreement, enc: ContentEncryption
    ) -> Iterator[Wrapped]:
        with self._path(enc).wrapped(agreed, _wrapping(row), enc) as wrapped:
            yield wrapped

    @contextmanager
    def _unwrapped(
        self,
        agreed: Keys,
        row: KeyAgreement,
        enc: ContentEncryption,
        encrypted_key: bytes,
    ) -> Iterator[Unwrapped]:
        with self._path(enc).unwrapped(agreed, _wrapping(row), enc, encrypted_key) as unwrapped:
            yield unwrapped


class ShownAgreementPath(WrappedAgreementPath):
    """The same, with every CEK as one that is to be split."""

    def _path(self, enc: ContentEncryption) -> CekPath:
        return self._paths[-1]


def _wrapping(row: KeyAgreement) -> KeyWrapping:
    assert row.wrapping is not None  # noqa: S101  # the rows of this path have one
    return row.wrapping
