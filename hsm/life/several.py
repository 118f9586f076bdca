"""Work for several keys at once."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from pkcs11 import PKCS11Error

from hsm.algorithms.tables import CONTENT_ENCRYPTIONS
from hsm.cryptoki.faults import Fault, fault_of, translate
from hsm.cryptoki.objects import encrypting
from hsm.cryptoki.session import Session
from hsm.errors import HsmError, KeyNotFound
from hsm.life.token import Token
from hsm.life.work import Work
from hsm.messages import Encrypted, KeyRef, Recipient
from hsm.operations import jwe_general
from hsm.operations.jwe_general import Brought, Held, Message, Receiver


@dataclass(frozen=True, slots=True, kw_only=True)
class SeveralUse(Work[list[Encrypted]]):
    """One message for all that it is ``to``."""

    to: Sequence[Recipient]
    enc: str
    arguments: tuple[bytes, bytes] = field(repr=False)
    is_checked: bool

    def run(self, token: Token, session: Session, attempt: int) -> list[Encrypted]:
        """See ``Work``."""
        plaintext, aad = self.arguments
        message = Message(enc=CONTENT_ENCRYPTIONS[self.enc], plaintext=plaintext, aad=aad)
        with ExitStack() as stack:
            receivers = [self._receiver(stack, token, session, one) for one in self.to]
            return jwe_general.seal(receivers, message, is_checked=self.is_checked)

    def failure(self, error: PKCS11Error) -> HsmError:
        """See ``Work``."""
        return KeyNotFound() if fault_of(error) is Fault.KEY_GONE else translate(error)

    def _receiver(
        self, stack: ExitStack, token: Token, session: Session, one: Recipient
    ) -> Receiver:
        token.require_offered(one.alg)
        transport = token.transport(one.alg, self.enc)
        if not isinstance(one.key, KeyRef):
            return Brought(public=one.key, row=transport.row, agreement=one.agreement)
        objects = encrypting(transport.row, is_checked=self.is_checked)
        keys = stack.enter_context(token.stores[one.key.storage].lent(session, one.key, objects))
        return Held(keys=keys, transport=transport, agreement=one.agreement)
