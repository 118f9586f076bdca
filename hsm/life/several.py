"""Work for several keys at once."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from pkcs11 import PKCS11Error

from hsm.algorithms.keyspec import KeySpec
from hsm.cryptoki.faults import Fault, fault_of, translate
from hsm.cryptoki.objects import KeyObject, decrypting, encrypting
from hsm.cryptoki.session import Session
from hsm.errors import HsmError, KeyNotFound
from hsm.life.token import Token
from hsm.life.work import Work
from hsm.messages import Encrypted, KeyRef, Received, Recipient
from hsm.operations import jwe_general
from hsm.operations.jwe import Transport
from hsm.operations.jwe_general import Brought, Held, Imported, Message, Receiver
from hsm.operations.session_keys import SessionKeys

Result = TypeVar("Result")


class WorkOfSeveral(Work[Result]):
    """Work that is in vain if one of its keys is gone."""

    def failure(self, error: PKCS11Error) -> HsmError:
        """See ``Work``."""
        return KeyNotFound() if fault_of(error) is Fault.KEY_GONE else translate(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeveralUse(WorkOfSeveral[list[Encrypted]]):
    """One message for all that it is ``to``."""

    to: Sequence[Recipient]
    enc: str
    arguments: tuple[bytes, bytes] = field(repr=False)
    is_checked: bool

    def run(self, token: Token, session: Session, attempt: int) -> list[Encrypted]:
        """See ``Work``."""
        plaintext, aad = self.arguments
        message = Message(enc=token.content_encryption(self.enc), plaintext=plaintext, aad=aad)
        with ExitStack() as stack:
            lender = Lender(token, session, stack)
            receivers = [self._receiver(lender, one) for one in self.to]
            return jwe_general.seal(receivers, message, is_checked=self.is_checked)

    def _receiver(self, lender: "Lender", one: Recipient) -> Receiver:
        transport = lender.transport(one, self.enc)
        if isinstance(one.key, KeyRef):
            objects = encrypting(transport.row, is_checked=self.is_checked)
            return lender.held(one, transport, objects)
        return lender.brought(one, transport)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrapping(WorkOfSeveral[Encrypted]):
    """One message that ``held`` opens, for the key that it is ``to`` as well; both are ours."""

    held: Recipient
    to: Recipient
    received: Received
    is_checked: bool

    def run(self, token: Token, session: Session, attempt: int) -> Encrypted:
        """See ``Work``."""
        enc = self.received.enc
        with ExitStack() as stack:
            lender = Lender(token, session, stack)
            from_old = lender.transport(self.held, enc)
            to_new = lender.transport(self.to, enc)
            if to_new.path.needs_value(to_new.enc):
                from_old = token.transport_showing(self.held.alg, enc)
            held = lender.held(self.held, from_old, decrypting(from_old.row))
            objects = encrypting(to_new.row, is_checked=self.is_checked)
            to = lender.held(self.to, to_new, objects)
            return jwe_general.rewrap(held, to, self.received, is_checked=self.is_checked)


@dataclass(frozen=True, slots=True)
class Lender:
    """Lends keys to ``session`` for as long as ``stack`` is open."""

    token: Token
    session: Session
    stack: ExitStack

    def transport(self, one: Recipient, enc: str) -> Transport:
        """Return how its CEKs travel; raise ``UnsupportedAlgorithm``."""
        self.token.require_offered(one.alg)
        return self.token.transport(one.alg, enc)

    def held(self, one: Recipient, transport: Transport, objects: Iterable[KeyObject]) -> Held:
        """Return those objects of a key of ours."""
        assert isinstance(one.key, KeyRef)  # noqa: S101  # the caller has looked
        store = self.token.stores[one.key.storage]
        keys = self.stack.enter_context(store.lent(self.session, one.key, objects))
        return Held(keys=keys, transport=transport, agreement=one.agreement)

    def brought(self, one: Recipient, transport: Transport) -> Receiver:
        """Return a key of somebody else's, in the token if the CEK stays there with it."""
        assert not isinstance(one.key, KeyRef)  # noqa: S101  # as above
        row, agreement = transport.row, one.agreement
        if transport.path.residency != "token":
            return Brought(public=one.key, row=row, agreement=agreement)
        makes = SessionKeys(self.token.templates, self.token.canary)
        spec = KeySpec(kty=row.kind.ktys[0], alg=row.name)
        keys = self.stack.enter_context(makes.imported_public(self.session, spec, one.key))
        return Imported(keys=keys, transport=transport, agreement=agreement)
