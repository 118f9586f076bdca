"""CEKs of ECDH-ES (RFC 7518 §4.6): agreed on, or wrapped by what is agreed on.

``AgreementPath``: the CEK is what Concat KDF makes of ECDH. ``WrappedAgreementPath``: that is the
key which wraps the CEK.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from hsm.algorithms.families import ContentEncryption, KeyAgreement, KeyWrapping
from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.handles import Handle, Key, bind, temporary_parts
from hsm.cryptoki.material import curve_of
from hsm.cryptoki.session import Session
from hsm.operations import ecdh
from hsm.operations.cek import NOTHING, Outcome, Path, TokenPath, Unwrapped, Wrapped
from hsm.operations.cek_splitting import SplittingPath
from hsm.operations.ecdh import Agreement


class AgreementPath(Path):
    """The CEK is what both sides agree on; Z stays in the token."""

    residency = "process"

    def carries(self, enc: ContentEncryption) -> bool:
        """See ``Path``."""
        return True

    @contextmanager
    def wrapped(
        self, public: Key, row: KeyAgreement, enc: ContentEncryption, said: Agreement = NOTHING
    ) -> Iterator[Wrapped]:
        """See ``Path``. The recipient's key is the other side of the ephemeral one."""
        recipient = ecdh.agreement_key(public.public)
        curve = curve_of(recipient)
        with (
            ecdh.ephemeral(public.lent, self._templates, row, curve) as pair,
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
        said: Agreement = NOTHING,
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
    ) -> Iterator[tuple[Key, ...]]:
        value = ecdh.derived(private, self._templates, row, enc, said)
        with ExitStack() as stack:
            try:
                imported = self._imported_agreed(private.lent, row, enc, value)
                agreed = stack.enter_context(imported)
            finally:
                value[:] = bytes(len(value))
            yield agreed

    def _imported_agreed(
        self, session: Session, _row: KeyAgreement, enc: ContentEncryption, value: bytearray
    ) -> AbstractContextManager[tuple[Key, ...]]:
        return self._imported(session, enc, value)

    @contextmanager
    def _given(
        self, agreed: tuple[Key, ...], _row: KeyAgreement, _enc: ContentEncryption
    ) -> Iterator[Wrapped]:
        yield Wrapped(agreed, b"")

    @contextmanager
    def _taken(
        self,
        agreed: tuple[Key, ...],
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

    def _imported_agreed(
        self, session: Session, row: KeyAgreement, _enc: ContentEncryption, value: bytearray
    ) -> AbstractContextManager[tuple[Key, ...]]:
        template = self._templates.imported_secret(None, _wrapping(row), value)
        return temporary_parts([lambda: bind(session, session.create_object(template))])

    def _path(self, enc: ContentEncryption) -> Path:
        return next(path for path in self._paths if path.carries(enc))

    @contextmanager
    def _given(
        self, agreed: tuple[Key, ...], row: KeyAgreement, enc: ContentEncryption
    ) -> Iterator[Wrapped]:
        (key,) = agreed
        with self._path(enc).wrapped(key, _wrapping(row), enc) as wrapped:
            yield wrapped

    @contextmanager
    def _taken(
        self,
        agreed: tuple[Key, ...],
        row: KeyAgreement,
        enc: ContentEncryption,
        encrypted_key: bytes,
    ) -> Iterator[Unwrapped]:
        (key,) = agreed
        with self._path(enc).unwrapped(key, _wrapping(row), enc, encrypted_key) as unwrapped:
            yield unwrapped


def _wrapping(row: KeyAgreement) -> KeyWrapping:
    assert row.wrapping is not None  # noqa: S101  # see ``paths.paths``
    return row.wrapping
