"""Keys for one message or trial: session objects that are gone at the end of a ``with`` block."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from hsm.algorithms.families import Algorithm
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import PrivateKey, PublicKey
from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.canary import Canary
from hsm.cryptoki.handles import Key, bind, bind_public, temporary, temporary_parts
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.session import Session


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """Makes keys with these templates."""

    templates: Templates
    canary: Canary

    @contextmanager
    def generated(self, session: Session, row: Algorithm, key_bytes: int) -> Iterator[Keys]:
        """Generate a secret key of ``row`` for one ``with`` block."""
        shares = zip(row.parts, row.shares(bytes(key_bytes)), strict=True)
        makes = [partial(self._generate, session, part, len(share)) for part, share in shares]
        with temporary_parts(makes) as secrets:
            yield Keys(session, self.canary, secrets)

    @contextmanager
    def imported(
        self,
        session: Session,
        row: Algorithm,
        value: bytes | bytearray,
        *,
        extractable: bool = False,
    ) -> Iterator[Keys]:
        """Create a secret key of ``row`` for one ``with`` block."""
        shares = zip(row.parts, row.shares(value), strict=True)
        makes = [
            partial(self._import, session, part, share, extractable=extractable)
            for part, share in shares
        ]
        with temporary_parts(makes) as secrets:
            yield Keys(session, self.canary, secrets)

    @contextmanager
    def generated_pair(self, session: Session, spec: KeySpec, bits: int | None) -> Iterator[Keys]:
        """Generate a pair for one ``with`` block; ``bits`` is the length of an RSA modulus."""
        made = session.generate_keypair(spec.kind.key_type, bits, **self.templates.pair_trial(spec))
        public, private = bind_public(session, made[0]), bind(session, made[1])
        with temporary(private), temporary(public):
            yield Keys.pair(self.canary, public, private)

    @contextmanager
    def imported_pair(self, session: Session, spec: KeySpec, key: PrivateKey) -> Iterator[Keys]:
        """Create a pair for one ``with`` block."""
        templates = self.templates
        private = bind(session, session.create_object(templates.imported_private(None, spec, key)))
        with temporary(private):
            made = session.create_object(templates.imported_public(None, spec, key.public_key()))
            public = bind_public(session, made)
            with temporary(public):
                yield Keys.pair(self.canary, public, private)

    @contextmanager
    def imported_public(self, session: Session, spec: KeySpec, key: PublicKey) -> Iterator[Keys]:
        """Create the public half of a pair of somebody else's for one ``with`` block."""
        made = session.create_object(self.templates.imported_public(None, spec, key))
        with temporary(bind(session, made)):
            keys = Keys(session, self.canary)
            keys.public = bind_public(session, made)
            yield keys

    def _generate(self, session: Session, part: Algorithm, share_bytes: int) -> Key:
        arguments = self.templates.secret_generation([part])
        return bind(session, session.generate_key(part.kind.key_type, 8 * share_bytes, **arguments))

    def _import(
        self, session: Session, part: Algorithm, share: bytearray, *, extractable: bool
    ) -> Key:
        template = self.templates.imported_secret(None, part, share, extractable=extractable)
        try:
            return bind(session, session.create_object(template))
        finally:
            share[:] = bytes(len(share))
