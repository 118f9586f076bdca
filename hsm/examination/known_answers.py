"""Known answers: keys, messages and results that the RFCs print, to compare a token's with.

``known_answers.json`` has one example or more for each algorithm. Where no RFC has one, the key is
printed in an RFC, and the result was computed once with OpenSSL; ``source`` then says so.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial, singledispatchmethod
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from joserfc import jwk
from joserfc.util import urlsafe_b64decode
from pkcs11 import PKCS11Error

from hsm.algorithms.families import (
    Algorithm,
    ContentEncryption,
    KeyManagement,
    MacAlgorithm,
    SignatureAlgorithm,
)
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.tables import ALGORITHMS, CONTENT_ENCRYPTIONS
from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.canary import Canary
from hsm.cryptoki.faults import Fault, fault_of, name_of
from hsm.cryptoki.handles import Handle, Key, temporary, temporary_parts
from hsm.cryptoki.material import Attributes
from hsm.cryptoki.session import Session
from hsm.errors import DecryptionFailed, HsmError
from hsm.operations import content, mac, signing
from hsm.operations.cek import Path as CekPath
from hsm.operations.ecdh import Agreement
from hsm.software import sealing

_FILE: Final = Path(__file__).with_suffix(".json")
_MESSAGE: Final = b"jose-hsm"
_NOT_IMPORTED: Final = (Fault.POLICY, Fault.BUG)


class Example(NamedTuple):
    """One of the file: ``key`` and ``epk`` are members of JWKs, ``octets`` are decoded."""

    name: str
    source: str
    key: frozenset[tuple[str, str]]
    enc: str
    octets: Mapping[str, bytes]
    epk: frozenset[tuple[str, str]]

    @property
    def crv(self) -> str | None:
        """The curve of the key, if it is on one."""
        return dict(self.key).get("crv")


class NotImported(Exception):
    """The token does not take keys from outside; the text is its return value."""


@cache
def examples() -> Mapping[str, tuple[Example, ...]]:
    """Return all examples by the name of their algorithm."""
    file = json.loads(_FILE.read_text("utf-8"))
    found: defaultdict[str, list[Example]] = defaultdict(list)
    for members in file["examples"]:
        name, source, key = (members.pop(member) for member in ("name", "source", "key"))
        enc, epk = members.pop("enc", ""), frozenset(members.pop("epk", {}).items())
        octets = {member: urlsafe_b64decode(text.encode()) for member, text in members.items()}
        found[name].append(
            Example(name, source, frozenset(file["keys"][key].items()), enc, octets, epk)
        )
    return MappingProxyType({name: tuple(found[name]) for name in found})


class KnownAnswers:
    """Compares results of one token with the known ones, with session objects only.

    ``paths`` are those that its CEKs take, by ``alg`` and ``enc``.
    """

    def __init__(
        self, templates: Templates, canary: Canary, paths: Mapping[tuple[str, str], CekPath]
    ) -> None:
        self._templates = templates
        self._canary = canary
        self._paths = paths

    def compare(self, example: Example, session: Session) -> None:
        """Raise ``HsmError`` if the token answers otherwise, ``PKCS11Error`` if it does not.

        Raises ``NotImported`` if it does not take the key.
        """
        self._compare(ALGORITHMS[example.name], example, session)

    @singledispatchmethod
    def _compare(self, row: Algorithm, example: Example, session: Session) -> None:
        raise NotImplementedError

    @_compare.register
    def _signature(self, row: SignatureAlgorithm, example: Example, session: Session) -> None:
        data, answer = example.octets["input"], example.octets["answer"]
        with self._pair(row, example, session) as (public, private):
            _require(signing.verify(public, row, data, answer, self._canary))
            _require(not signing.verify(public, row, data + b"A", answer, self._canary))
            assert public.public is not None  # noqa: S101  # ``Handle.of`` reads that of every one
            made = signing.sign(private, row, data, public.public)
            is_random = row.param is not None or row.is_prehashed  # PSS and ECDSA
            _require(is_random or made == answer)

    @_compare.register
    def _mac(self, row: MacAlgorithm, example: Example, session: Session) -> None:
        with self._secret(row, example, session) as (key,):
            _require(mac.compute(key, row, example.octets["input"]) == example.octets["answer"])

    @_compare.register
    def _content(self, row: ContentEncryption, example: Example, session: Session) -> None:
        octets = example.octets
        aad, plaintext = octets["aad"], octets["plaintext"]
        sealed = content.Sealed(octets["iv"], octets["ciphertext"], octets["tag"])
        with self._secret(row, example, session) as cek:
            _require(content.decrypt(cek, row, sealed, aad, self._canary) == plaintext)
            _require(not self._opens(cek, row, sealed, aad + b"A"))
            ours = content.encrypt(cek, row, plaintext, aad)
        value = urlsafe_b64decode(dict(example.key)["k"].encode())
        _require(ours == sealing.seal(row, value, ours.iv, plaintext, aad))

    @_compare.register
    def _transport(self, row: KeyManagement, example: Example, session: Session) -> None:
        octets, enc = example.octets, CONTENT_ENCRYPTIONS[example.enc]
        epk = _key(example.epk).public_key if example.epk else None
        said = Agreement(epk, octets.get("apu", b""), octets.get("apv", b""))
        iv = os.urandom(enc.iv_bytes)
        sealed = sealing.seal(enc, octets["cek"], iv, _MESSAGE, _MESSAGE)
        path = self._paths[row.name, enc.name]
        made = self._pair if row.kind.is_pair else self._secret
        with (
            made(row, example, session) as keys,
            path.unwrapped(keys[-1], row, enc, octets["encrypted_key"], said) as unwrapped,
        ):
            _require(self._opens(unwrapped.cek, enc, sealed, _MESSAGE))

    def _opens(
        self, cek: content.Cek, row: ContentEncryption, sealed: content.Sealed, aad: bytes
    ) -> bool:
        try:
            content.decrypt(cek, row, sealed, aad, self._canary)
        except DecryptionFailed:
            return False
        return True

    @contextmanager
    def _secret(
        self, row: Algorithm, example: Example, session: Session
    ) -> Iterator[tuple[Key, ...]]:
        value = urlsafe_b64decode(dict(example.key)["k"].encode())
        templates = (
            self._templates.imported_secret(None, part, share)
            for part, share in zip(row.parts, row.shares(value), strict=True)
        )
        with temporary_parts(partial(_imported, session, each) for each in templates) as keys:
            yield keys

    @contextmanager
    def _pair(
        self, row: Algorithm, example: Example, session: Session
    ) -> Iterator[tuple[Key, Key]]:
        spec = KeySpec(kty=dict(example.key)["kty"], alg=row.name, crv=example.crv)
        key = _key(example.key).private_key
        with (
            temporary(_imported(session, self._templates.imported_private(None, spec, key))) as own,
            temporary(
                _imported(session, self._templates.imported_public(None, spec, key))
            ) as other,
        ):
            yield other, own


@cache  # whole RSA keys are looked at for a tenth of a second
def _key(members: frozenset[tuple[str, str]]) -> Any:
    """Return the JWK of ``members``."""
    return jwk.import_key(dict(members))


def _imported(session: Session, template: Attributes) -> Key:
    try:
        made = session.create_object(template)
    except PKCS11Error as error:
        if fault_of(error) in _NOT_IMPORTED:
            raise NotImported(name_of(error)) from error
        raise
    return Key(session, Handle.of(made), made)


def _require(is_right: bool) -> None:
    if not is_right:
        raise HsmError
