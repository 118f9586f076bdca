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
from hsm.algorithms.kinds import Curve
from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.handles import Handle, Key, bind, temporary
from hsm.cryptoki.material import AgreementKey, PublicKey, curve_of, point_of
from hsm.cryptoki.session import Session

_HASH_BYTES: Final = hashlib.sha256().digest_size


class Agreement(NamedTuple):
    """What the header of a message says of it (RFC 7518 §4.6.1); there is no ``epk`` at first."""

    epk: AgreementKey | None = None
    apu: bytes = b""
    apv: bytes = b""


class Ephemeral(NamedTuple):
    """A pair for one message; the private half is in the token."""

    public: AgreementKey
    private: Key


def agreement_key(public: PublicKey | None) -> AgreementKey:
    """Return ``public``, which is on a curve of ECDH-ES: no other key is bound to it."""
    assert isinstance(public, AgreementKey)  # noqa: S101  # see above
    return public


@contextmanager
def ephemeral(
    session: Session, templates: Templates, row: KeyAgreement, curve: Curve
) -> Iterator[Ephemeral]:
    """Make a pair of session objects for one ``with`` block."""
    spec = KeySpec(kty=curve.kind.ktys[0], alg=row.name, crv=curve.crv)
    pair = session.generate_keypair(curve.kind.key_type, None, **templates.pair_generation(spec))
    try:
        public, private = pair
        yield Ephemeral(agreement_key(Handle.of(public).public), bind(session, private))
    finally:
        for half in pair:
            session.destroy(half)


def derived(
    private: Key, templates: Templates, row: KeyAgreement, enc: ContentEncryption, said: Agreement
) -> bytearray:
    """Return the key that ``private`` agrees on with ``epk``: a CEK, or what wraps one.

    The caller has checked ``epk``, and wipes the key.
    """
    other = agreement_key(said.epk)
    secret = private.derive_key(
        KeyType.GENERIC_SECRET,
        8 * curve_of(other).coordinate_bytes,
        capabilities=MechanismFlag(0),
        mechanism=Mechanism.ECDH1_DERIVE,
        mechanism_param=(KDF.NULL, None, point_of(other)),
        template=templates.shared_secret(),
    )
    with temporary(bind(private.lent, secret)) as z:
        return _concat_kdf(z, agreed_bytes(row, enc), other_info(row, enc, said))


def other_info(row: KeyAgreement, enc: ContentEncryption, said: Agreement) -> bytes:
    """Return OtherInfo (RFC 7518 §4.6.2); SuppPrivInfo is empty."""
    algorithm_id = (row if row.wrapping else enc).name.encode("ascii")
    parts = (algorithm_id, said.apu, said.apv)
    supp_pub_info = (8 * agreed_bytes(row, enc)).to_bytes(4)
    return b"".join(len(part).to_bytes(4) + part for part in parts) + supp_pub_info


def agreed_bytes(row: KeyAgreement, enc: ContentEncryption) -> int:
    """Return how long the key is that both sides agree on."""
    return (row.wrapping or enc).key_bytes


def _concat_kdf(z: Key, key_bytes: int, info: bytes) -> bytearray:
    """Return the output of Concat KDF with SHA-256 (NIST SP 800-56A §5.8.1)."""
    key = bytearray()
    for counter in range(1, -(-key_bytes // _HASH_BYTES) + 1):
        key += z.lent.digest((counter.to_bytes(4), z, info), mechanism=Mechanism.SHA256)
    del key[key_bytes:]
    return key
