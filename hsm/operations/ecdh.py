"""ECDH-ES (RFC 7518 §4.6): ephemeral keys, and what both sides make of the shared secret Z.

Z is derived in the token and hashed there. Only what Concat KDF makes of it is shown.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from pkcs11 import KeyType, Mechanism, MechanismFlag
from pkcs11.mechanisms import KDF

from hsm.algorithms.families import ContentEncryption, KeyAgreement
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import AgreementKey, Curve, PublicKey, curve_of
from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.handles import Key, bind, bind_public, temporary
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.material import point_of
from hsm.messages import Agreement, agreed_bytes, other_info

_HASH_BYTES: Final = hashlib.sha256().digest_size


class Ephemeral(NamedTuple):
    """A pair for one message; the private half is in the token."""

    public: AgreementKey
    keys: Keys


def agreement_key(public: PublicKey | None) -> AgreementKey:
    """Return ``public``, which is on a curve of ECDH-ES: no other key is bound to it."""
    assert isinstance(public, AgreementKey)  # noqa: S101  # see above
    return public


@contextmanager
def ephemeral(
    keys: Keys, templates: Templates, row: KeyAgreement, curve: Curve
) -> Iterator[Ephemeral]:
    """Make a pair of session objects beside ``keys`` for one ``with`` block."""
    spec = KeySpec(kty=curve.kind.ktys[0], alg=row.name, crv=curve.crv)
    session = keys.session
    pair = session.generate_keypair(curve.kind.key_type, None, **templates.pair_generation(spec))
    try:
        public, private = bind_public(session, pair[0]), bind(session, pair[1])
        yield Ephemeral(agreement_key(public.numbers), Keys.pair(keys.canary, public, private))
    finally:
        for made in pair:
            session.destroy(made)


def derived(
    private: Key,
    templates: Templates,
    row: KeyAgreement,
    enc: ContentEncryption,
    agreement: Agreement,
) -> bytearray:
    """Return the key that ``private`` agrees on with ``epk``: a CEK, or what wraps one.

    The caller has checked ``epk``, and wipes the key.
    """
    with temporary(shared_secret(private, templates, agreement_key(agreement.epk))) as z:
        return _concat_kdf(z, agreed_bytes(row, enc), other_info(row, enc, agreement))


def shared_secret(private: Key, templates: Templates, other: AgreementKey) -> Key:
    """Return Z, which both agree on, as a session object that is good only to be hashed."""
    secret = private.derive_key(
        KeyType.GENERIC_SECRET,
        8 * curve_of(other).coordinate_bytes,
        capabilities=MechanismFlag(0),
        mechanism=Mechanism.ECDH1_DERIVE,
        mechanism_param=(KDF.NULL, None, point_of(other)),
        template=templates.for_one(Mechanism.SHA256),
    )
    return bind(private.lent, secret)


def _concat_kdf(z: Key, key_bytes: int, info: bytes) -> bytearray:
    """Return the output of Concat KDF with SHA-256 (NIST SP 800-56A §5.8.1)."""
    key = bytearray()
    for counter in range(1, -(-key_bytes // _HASH_BYTES) + 1):
        key += z.lent.digest((counter.to_bytes(4), z, info), mechanism=Mechanism.SHA256)
    del key[key_bytes:]
    return key
