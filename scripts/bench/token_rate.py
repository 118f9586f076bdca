"""The token's own rate: the calls that an operation needs, through python-pkcs11 and nothing else.

In as many processes as the service has workers, each with one thread, as fast as it goes. Keys are
token objects, as those of the service are, and their handles are at hand.
"""

import hashlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import pkcs11
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from pkcs11 import MGF, Attribute, GCMParams, KeyType, Mechanism, ObjectClass, Session
from pkcs11.util.ec import encode_named_curve_parameters

from hsm.cryptoki.material import read_public
from scripts.bench.points import BATCHED

Operation = Callable[[], Any]
"""One operation; what it returns, if anything, was made on the token and has to be destroyed."""

_DATA: Final = b"x" * 64
_AAD: Final = b"." * 100
_P256: Final = encode_named_curve_parameters("secp256r1")
_ED25519: Final = bytes.fromhex("06032b6570")
_PSS: Final = (Mechanism.SHA256, MGF.SHA256, 32)
_OAEP: Final = (Mechanism.SHA_1, MGF.SHA1, None)


def _gcm(session: Session) -> dict[str, Any]:
    iv = session.generate_random(96)
    return {"mechanism": Mechanism.AES_GCM, "mechanism_param": GCMParams(iv, _AAD, 128)}


def _encrypt(session: Session, size: int) -> Operation:
    key: Any = session.generate_key(KeyType.AES, 256, store=True)
    data = b"x" * size
    return lambda: _discard(key.encrypt(data, **_gcm(session)))


def _encrypt_checked(session: Session) -> Operation:
    key: Any = session.generate_key(KeyType.AES, 256, store=True)

    def run() -> None:
        gcm = _gcm(session)
        key.decrypt(key.encrypt(_DATA, **gcm), **gcm)

    return run


def _hmac_checked(session: Session) -> Operation:
    mac = _hmac(session)

    def run() -> None:
        mac()
        mac()

    return run


def _es256_checked(session: Session) -> Operation:
    public, private = _ec_pair(session, KeyType.EC, _P256)
    numbers: Any = read_public(public)

    def run() -> None:
        made = private.sign(hashlib.sha256(_DATA).digest(), mechanism=Mechanism.ECDSA)
        r, s = (int.from_bytes(half) for half in (made[:32], made[32:]))
        numbers.verify(utils.encode_dss_signature(r, s), _DATA, ec.ECDSA(hashes.SHA256()))

    return run


def _rs256_checked(session: Session) -> Operation:
    private, numbers = _rsa_pair(session)

    def run() -> None:
        made = private.sign(_DATA, mechanism=Mechanism.SHA256_RSA_PKCS)
        numbers.verify(made, _DATA, padding.PKCS1v15(), hashes.SHA256())

    return run


def _batch(session: Session, make: Callable[[Session], Operation]) -> Operation:
    """Return a batch of what is made and checked, as the service does it."""
    operation = make(session)

    def run() -> None:
        for _ in range(BATCHED):
            operation()

    return run


def _decrypt(session: Session, size: int) -> Operation:
    key: Any = session.generate_key(KeyType.AES, 256, store=True)
    gcm = _gcm(session)
    sealed = key.encrypt(b"x" * size, **gcm)
    return lambda: _discard(key.decrypt(sealed, **gcm))


def _hmac(session: Session) -> Operation:
    key: Any = session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
            Attribute.VALUE: session.generate_random(256),
            Attribute.TOKEN: True,
            Attribute.SIGN: True,
        }
    )
    return lambda: _discard(key.sign(_DATA, mechanism=Mechanism.SHA256_HMAC))


def _ec_pair(session: Session, key_type: KeyType, parameters: bytes) -> tuple[Any, Any]:
    domain = session.create_domain_parameters(
        key_type, {Attribute.EC_PARAMS: parameters}, local=True
    )
    return domain.generate_keypair(store=True)


def _es256(session: Session, *, verify: bool = False) -> Operation:
    public, private = _ec_pair(session, KeyType.EC, _P256)
    ecdsa = {"mechanism": Mechanism.ECDSA}
    if not verify:
        return lambda: _discard(private.sign(hashlib.sha256(_DATA).digest(), **ecdsa))
    signature = private.sign(hashlib.sha256(_DATA).digest(), **ecdsa)
    return lambda: _discard(public.verify(hashlib.sha256(_DATA).digest(), signature, **ecdsa))


def _eddsa(session: Session) -> Operation:
    _, private = _ec_pair(session, KeyType.EC_EDWARDS, _ED25519)
    return lambda: _discard(private.sign(_DATA, mechanism=Mechanism.EDDSA))


def _rsa_sign(session: Session, bits: int, **mechanism: Any) -> Operation:
    private: Any = session.generate_keypair(KeyType.RSA, bits, store=True)[1]
    return lambda: _discard(private.sign(_DATA, **mechanism))


def _rsa_pair(session: Session) -> tuple[Any, rsa.RSAPublicKey]:
    public, private = session.generate_keypair(KeyType.RSA, 2048, store=True)
    exponent, modulus = (
        int.from_bytes(public[name]) for name in (Attribute.PUBLIC_EXPONENT, Attribute.MODULUS)
    )
    return private, rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _unwrapped(private: Any, encrypted_key: bytes, *, store: bool) -> Any:
    return private.unwrap_key(
        ObjectClass.SECRET_KEY,
        KeyType.AES,
        encrypted_key,
        mechanism=Mechanism.RSA_PKCS_OAEP,
        mechanism_param=_OAEP,
        store=store,
        template={Attribute.DECRYPT: True, Attribute.ENCRYPT: True},
    )


def _encrypted_cek(public: rsa.RSAPublicKey) -> bytes:
    sha1 = hashes.SHA1()  # noqa: S303  # RSA-OAEP is that (RFC 7518 §4.3)
    return public.encrypt(os.urandom(32), padding.OAEP(padding.MGF1(sha1), sha1, None))


def _oaep_decrypt(session: Session) -> Operation:
    private, public = _rsa_pair(session)
    encrypted_key, gcm = _encrypted_cek(public), _gcm(session)
    with_cek = _unwrapped(private, encrypted_key, store=False)
    sealed = with_cek.encrypt(_DATA, **gcm)

    def run() -> None:
        cek = _unwrapped(private, encrypted_key, store=False)
        cek.decrypt(sealed, **gcm)
        cek.destroy()

    return run


def _raw_decrypt(session: Session) -> Operation:
    """RSA in the token, and the CEK as a session object: all that SoftHSM has for SHA-256."""
    private, _ = _rsa_pair(session)
    encrypted_key, gcm = bytes(1) + os.urandom(255), _gcm(session)
    value = os.urandom(32)

    def cek() -> Any:
        return session.create_object(
            {
                Attribute.CLASS: ObjectClass.SECRET_KEY,
                Attribute.KEY_TYPE: KeyType.AES,
                Attribute.VALUE: value,
                Attribute.ENCRYPT: True,
                Attribute.DECRYPT: True,
            }
        )

    sealed = cek().encrypt(_DATA, **gcm)

    def run() -> None:
        private.decrypt(encrypted_key, mechanism=Mechanism.RSA_X_509)
        key = cek()
        key.decrypt(sealed, **gcm)
        key.destroy()

    return run


def _unwrap(session: Session) -> Operation:
    private, public = _rsa_pair(session)
    encrypted_key = _encrypted_cek(public)
    return lambda: [_unwrapped(private, encrypted_key, store=True)]


def _create_aes(session: Session) -> Operation:
    return lambda: [session.generate_key(KeyType.AES, 256, store=True)]


def _create_rsa(session: Session) -> Operation:
    return lambda: session.generate_keypair(KeyType.RSA, 2048, store=True)


def _discard(_result: object) -> None:
    """Return nothing: nothing was made."""


OPERATIONS: Final[Mapping[str, Callable[[Session], Operation]]] = {
    "encrypt-64": partial(_encrypt, size=64),
    "encrypt-4k": partial(_encrypt, size=4096),
    "encrypt-1m": partial(_encrypt, size=1 << 20),
    "decrypt-64": partial(_decrypt, size=64),
    "decrypt-4k": partial(_decrypt, size=4096),
    "decrypt-1m": partial(_decrypt, size=1 << 20),
    "batch-encrypt-64": partial(_batch, make=_encrypt_checked),
    "batch-hs256": partial(_batch, make=_hmac_checked),
    "batch-es256-sign": partial(_batch, make=_es256_checked),
    "batch-rs256-2048": partial(_batch, make=_rs256_checked),
    "hs256": _hmac,
    "es256-sign": _es256,
    "es256-verify": partial(_es256, verify=True),
    "rs256-2048": partial(_rsa_sign, bits=2048, mechanism=Mechanism.SHA256_RSA_PKCS),
    "ps256-3072": partial(
        _rsa_sign, bits=3072, mechanism=Mechanism.SHA256_RSA_PKCS_PSS, mechanism_param=_PSS
    ),
    "eddsa": _eddsa,
    "rsa-oaep": _oaep_decrypt,
    "rsa-oaep-256": _raw_decrypt,
    "unwrap": _unwrap,
    "create-aes": _create_aes,
    "create-rsa": _create_rsa,
}


class TokenRate:
    """Processes with a session each, which measure at the same time."""

    def __init__(self, ends: list[Connection]) -> None:
        self._ends = ends

    def measure(self, name: str, seconds: float) -> float:
        """Return the operations in a second of all processes together."""
        for end in self._ends:
            end.send((name, seconds))
        return float(sum(end.recv() for end in self._ends))


@contextmanager
def token_rate(settings: Mapping[str, str], processes: int) -> Iterator[TokenRate]:
    """Start the processes, one after the other: each login rewrites a file of SoftHSM."""
    spawn = multiprocessing.get_context("spawn")
    started, ends = [], []
    try:
        for _ in range(processes):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(dict(settings), theirs), daemon=True)
            process.start()
            started.append(process)
            ends.append(ours)
            ours.recv()
        yield TokenRate(ends)
    finally:
        for end in ends:
            end.send(None)
        for process in started:
            process.join()


def _serve(settings: Mapping[str, str], end: Connection) -> None:
    os.environ["SOFTHSM2_CONF"] = settings["SOFTHSM2_CONF"]
    token = pkcs11.lib(settings["JOSE_HSM_PKCS11_MODULE"]).get_token(
        token_label=settings["JOSE_HSM_TOKEN_LABEL"]
    )
    pin = Path(settings["JOSE_HSM_PIN_FILE"]).read_text("utf-8")
    operations: dict[str, Operation] = {}
    with token.open(rw=True, user_pin=pin) as session:
        end.send("ready")
        while (job := end.recv()) is not None:
            name, seconds = job
            if name not in operations:
                operations[name] = OPERATIONS[name](session)
            end.send(_rate(operations[name], seconds))


def _rate(operation: Operation, seconds: float) -> float:
    """Return operations in a second; destroying what they made does not count."""
    count, spent = 0, 0.0
    while spent < seconds:
        started = time.perf_counter()
        made = operation()
        spent += time.perf_counter() - started
        count += 1
        for key in made or ():
            key.destroy()
    return count / spent
