"""JWE: a CEK on its path, and the content under it (RFC 7516 §5.1, §5.2)."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from hsm.algorithms.families import CekPathName, ContentEncryption, KeyManagement
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.repeated import Repeatedly
from hsm.errors import DecryptionFailed, WrongResult
from hsm.messages import NO_AGREEMENT, Agreement, Encrypted, Sealed
from hsm.operations import content
from hsm.operations.cek import CekPath, TokenPath, Unwrapped
from hsm.operations.cek_agreed import AgreementPath, WrappedAgreementPath
from hsm.operations.cek_process import ProcessPath
from hsm.operations.cek_sealed import SealingPath
from hsm.operations.cek_splitting import SplittingPath

CEK_PATHS: Final[Mapping[CekPathName, type[CekPath]]] = MappingProxyType(
    {
        CekPathName.TOKEN: TokenPath,
        CekPathName.SPLITTING: SplittingPath,
        CekPathName.PROCESS: ProcessPath,
        CekPathName.AGREEMENT: AgreementPath,
        CekPathName.WRAPPED_AGREEMENT: WrappedAgreementPath,
        CekPathName.SEALING: SealingPath,
    }
)

OPENINGS: Final = 2
"""How often what came wrapped has to fail: a token in trouble for a moment says of a good padding,
once, what it says of a bad one."""

Result = TypeVar("Result")
Aad = Callable[[Agreement], bytes]
"""Returns the AAD of a message, whose header says how its recipient gets the CEK."""


class Transport(NamedTuple):
    """How the CEKs of ``enc`` travel with ``row`` on one token."""

    path: CekPath
    row: KeyManagement
    enc: ContentEncryption

    def unwrapped(
        self, keys: Keys, encrypted_key: bytes, agreement: Agreement
    ) -> AbstractContextManager[Unwrapped]:
        """Give the CEK of a message for one ``with`` block; see ``CekPath``."""
        return self.path.unwrapped(keys, self.row, self.enc, encrypted_key, agreement)

    def opened(
        self,
        keys: Keys,
        encrypted_key: bytes,
        agreement: Agreement,
        use: Callable[[Unwrapped], Result],
    ) -> Result:
        """Return what ``use`` makes of the CEK of a message.

        Raises ``DecryptionFailed`` if ``use`` does so with each opening. All of it is done again,
        whatever was wrong, so that the steps are the same.
        """
        for _ in range(OPENINGS):
            with (
                suppress(DecryptionFailed),
                self.unwrapped(keys, encrypted_key, agreement) as unwrapped,
            ):
                return use(unwrapped)
        raise DecryptionFailed


def seal(  # noqa: PLR0913, PLR0917  # the parts of a JWE
    keys: Keys,
    transport: Transport,
    plaintext: bytes,
    aad: Aad,
    agreement: Agreement,
    is_checked: bool,
) -> Encrypted:
    """Return the parts of a JWE; with ``is_checked`` only after they have been opened again."""
    path, row, enc = transport
    with path.wrapped(keys, row, enc, agreement) as wrapped:
        authenticated = aad(wrapped.agreement)
        sealed = content.seal(wrapped.cek, enc, plaintext, authenticated)
    made = Encrypted(wrapped.encrypted_key, sealed, wrapped.agreement)
    if is_checked:
        require_opens(keys, transport, made, authenticated, plaintext)
    return made


def require_opens(
    keys: Keys, transport: Transport, made: Encrypted, aad: bytes, plaintext: bytes
) -> None:
    """Raise ``WrongResult`` unless ``made`` opens and holds ``plaintext``."""
    try:
        opened = unseal(keys, transport, made.encrypted_key, made.sealed, aad, made.agreement)
    except DecryptionFailed:
        raise WrongResult("ciphertext") from None
    if opened != plaintext:
        raise WrongResult("ciphertext")


def seal_directly(
    keys: Keys, enc: ContentEncryption, plaintext: bytes, aad: Aad, is_checked: bool
) -> Encrypted:
    """Return the parts of a JWE whose CEK is the key itself (RFC 7518 §4.5); see ``seal``."""
    authenticated = aad(NO_AGREEMENT)
    sealed = content.seal(keys, enc, plaintext, authenticated)
    if is_checked:
        content.require_opens(keys, enc, sealed, authenticated, plaintext)
    return Encrypted(b"", sealed)


def repeated_seal_directly(
    keys: Keys, enc: ContentEncryption, *, is_checked: bool
) -> Repeatedly | None:
    """Return what does ``seal_directly`` with many plaintexts and what makes their AAD."""
    seal_one = content.repeated_seal(keys, enc, is_checked=is_checked)
    if seal_one is None:
        return None

    def seal_for_itself(plaintext: bytes, aad: Aad) -> Encrypted | None:
        sealed = seal_one(plaintext, aad(NO_AGREEMENT))
        return sealed and Encrypted(b"", sealed)

    return seal_for_itself


def unseal(  # noqa: PLR0913, PLR0917  # the parts of a JWE
    keys: Keys,
    transport: Transport,
    encrypted_key: bytes,
    sealed: Sealed,
    aad: bytes,
    agreement: Agreement,
) -> bytes:
    """Return the plaintext; raise ``DecryptionFailed``, whatever is wrong (RFC 7516 §11.5)."""

    def plaintext_of(unwrapped: Unwrapped) -> bytes:
        return content.unseal(unwrapped.cek, transport.enc, sealed, aad, looks=1)

    return transport.opened(keys, encrypted_key, agreement, plaintext_of)


def round_trip(keys: Keys, transport: Transport, message: bytes) -> bool:
    """Tell that what is sealed opens again; raise ``WrongResult`` if it does not."""
    seal(keys, transport, message, lambda _: message, NO_AGREEMENT, is_checked=True)
    return True
