"""JWE for several recipients: one CEK, which each gets in its own way (RFC 7516 §7.2.1).

Whoever is to get it later than the others gets the CEK of the message as it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from hsm.algorithms.families import ContentEncryption, KeyManagement
from hsm.algorithms.kinds import PublicKey
from hsm.cryptoki.keys import Keys
from hsm.messages import Agreement, Encrypted, Received, Sealed
from hsm.operations import content, jwe
from hsm.operations.cek import NewCek, Unwrapped
from hsm.operations.jwe import Transport
from hsm.software import peer


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What all get."""

    enc: ContentEncryption
    plaintext: bytes
    aad: bytes


class Receiver(ABC):
    """One recipient, as far as its key goes."""

    @abstractmethod
    def needs_value(self, enc: ContentEncryption) -> bool:
        """Tell whether it gets a CEK of ``enc`` by its value only."""

    @abstractmethod
    def wrap(self, enc: ContentEncryption, cek: NewCek) -> tuple[bytes, Agreement]:
        """Return the encrypted key, and what the header holds of it."""

    @abstractmethod
    def require_opens(self, message: Message, made: Encrypted) -> None:
        """Raise ``WrongResult`` if we could see that it cannot open the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held(Receiver):
    """A key of the token."""

    keys: Keys
    transport: Transport
    agreement: Agreement

    def needs_value(self, enc: ContentEncryption) -> bool:
        """See ``Receiver``."""
        return self.transport.path.needs_value(enc)

    def wrap(self, enc: ContentEncryption, cek: NewCek) -> tuple[bytes, Agreement]:
        """See ``Receiver``."""
        path, row, _ = self.transport
        wrapped = path.wrap(self.keys, row, enc, cek, self.agreement)
        return wrapped.encrypted_key, wrapped.agreement

    def require_opens(self, message: Message, made: Encrypted) -> None:
        """See ``Receiver``."""
        jwe.require_opens(self.keys, self.transport, made, message.aad, message.plaintext)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported(Held):
    """A public key of somebody else's, who alone can open the message; the token has it to wrap."""

    def require_opens(self, message: Message, made: Encrypted) -> None:
        """See ``Receiver``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought(Receiver):
    """The same where the token cannot wrap, and the CEK is in the process."""

    public: PublicKey
    row: KeyManagement
    agreement: Agreement

    def needs_value(self, enc: ContentEncryption) -> bool:
        """See ``Receiver``."""
        return True

    def wrap(self, enc: ContentEncryption, cek: NewCek) -> tuple[bytes, Agreement]:
        """See ``Receiver``."""
        sent = peer.send(self.public, self.row, enc, cek.value, self.agreement)
        return sent.encrypted_key, sent.agreement

    def require_opens(self, message: Message, made: Encrypted) -> None:
        """See ``Receiver``."""


def seal(receivers: Sequence[Receiver], message: Message, *, is_checked: bool) -> list[Encrypted]:
    """Return the message for each; with ``is_checked`` only after ours have opened it again.

    One of them at least is a key of the token, where the CEK stays if nobody needs its value.
    """
    enc = message.enc
    holder = next(one for one in receivers if isinstance(one, Held))
    is_shown = any(one.needs_value(enc) for one in receivers)
    with holder.transport.path.new(holder.keys, enc, is_shown=is_shown) as cek:
        wraps = [one.wrap(enc, cek) for one in receivers]
        sealed: Sealed = content.seal(cek.keys, enc, message.plaintext, message.aad)
    made = [Encrypted(encrypted_key, sealed, agreement) for encrypted_key, agreement in wraps]
    if is_checked:
        for one, its in zip(receivers, made, strict=True):
            one.require_opens(message, its)
    return made


def rewrap(held: Held, to: Held, received: Received, *, is_checked: bool) -> Encrypted:
    """Return what ``to`` gets of a message that ``held`` opens; its CEK and content stay.

    Raises ``DecryptionFailed``, whatever is wrong (RFC 7516 §11.5): nothing is wrapped before the
    content has been opened. The CEK stays in the token if neither needs its value.
    """
    enc, sealed, aad = held.transport.enc, received.sealed, received.aad

    def wrapped_anew(unwrapped: Unwrapped) -> tuple[bytes, tuple[bytes, Agreement]]:
        plaintext = content.unseal(unwrapped.cek, enc, sealed, aad, looks=1)
        value = bytes(unwrapped.value) if to.needs_value(enc) else b""
        return plaintext, to.wrap(enc, NewCek(unwrapped.cek, value))

    plaintext, (encrypted_key, made) = held.transport.opened(
        held.keys, received.encrypted_key, held.agreement, wrapped_anew
    )
    wrapped = Encrypted(encrypted_key, sealed, made)
    if is_checked:
        to.require_opens(Message(enc=enc, plaintext=plaintext, aad=aad), wrapped)
    return wrapped
