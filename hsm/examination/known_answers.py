"""Known answers: keys, messages and results that the RFCs print, to compare a token's with.

``known_answers.json`` has one example or more for each algorithm. Where no RFC has one, the key is
printed in an RFC, and the result was computed once with OpenSSL; ``source`` then says so.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from joserfc import jwk
from joserfc.util import urlsafe_b64decode
from pkcs11 import PKCS11Error

from hsm.algorithms.families import (
    Algorithm,
    ContentEncryption,
    Family,
    MacAlgorithm,
    SignatureAlgorithm,
)
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.tables import CONTENT_ENCRYPTIONS, KEY_MANAGEMENTS
from hsm.cryptoki.faults import Fault, fault_of, name_of
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.session import Session
from hsm.errors import require
from hsm.life.token import Token
from hsm.messages import Agreement, Sealed
from hsm.operations import content, mac, signing
from hsm.operations.jwe import Transport
from hsm.operations.session_keys import SessionKeys
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
    """Compares results of one token with the known ones, with session objects only."""

    def __init__(self, token: Token) -> None:
        self._session_keys = SessionKeys(token.templates, token.canary)
        self._token = token

    def compare(self, example: Example, session: Session) -> None:
        """Raise ``HsmError`` if the token answers otherwise, ``PKCS11Error`` if it does not.

        Raises ``NotImported`` if it does not take the key.
        """
        row = self._token.rows[example.name]
        with self._imported(row, example, session) as keys:
            if row.family is Family.KEY_MANAGEMENT:
                _transported(keys, self._transport(example), example)
            else:
                _COMPARISONS[row.family](keys, row, example)

    def _transport(self, example: Example) -> Transport:
        path = self._token.paths[example.name, example.enc]
        enc = CONTENT_ENCRYPTIONS[example.enc]
        return Transport(path, KEY_MANAGEMENTS[example.name], enc)

    @contextmanager
    def _imported(self, row: Algorithm, example: Example, session: Session) -> Iterator[Keys]:
        make = self._pair if row.kind.is_pair else self._secret
        with ExitStack() as stack:
            try:
                keys = stack.enter_context(make(row, example, session))
            except PKCS11Error as error:
                if fault_of(error) in _NOT_IMPORTED:
                    raise NotImported(name_of(error)) from error
                raise
            yield keys

    def _pair(
        self, row: Algorithm, example: Example, session: Session
    ) -> AbstractContextManager[Keys]:
        spec = KeySpec(kty=dict(example.key)["kty"], alg=row.name, crv=example.crv)
        return self._session_keys.imported_pair(session, spec, _key(example.key).private_key)

    def _secret(
        self, row: Algorithm, example: Example, session: Session
    ) -> AbstractContextManager[Keys]:
        return self._session_keys.imported(session, row, _value(example))


def _signed(keys: Keys, row: SignatureAlgorithm, example: Example) -> None:
    data, answer = example.octets["input"], example.octets["answer"]
    require(signing.verify(keys, row, data, answer))
    require(not signing.verify(keys, row, data + b"A", answer))
    made = signing.sign(keys, row, data)
    require(row.is_random or made == answer)


def _computed(keys: Keys, row: MacAlgorithm, example: Example) -> None:
    require(mac.compute(keys, row, example.octets["input"]) == example.octets["answer"])


def _sealed(cek: Keys, row: ContentEncryption, example: Example) -> None:
    octets = example.octets
    aad, plaintext = octets["aad"], octets["plaintext"]
    sealed = Sealed(octets["iv"], octets["ciphertext"], octets["tag"])
    require(content.opens(cek, row, sealed, aad, plaintext))
    require(not content.opens(cek, row, sealed, aad + b"A", plaintext))
    ours = content.seal(cek, row, plaintext, aad)
    require(ours == sealing.seal(row, _value(example), ours.iv, plaintext, aad))


def _transported(keys: Keys, transport: Transport, example: Example) -> None:
    octets, enc = example.octets, transport.enc
    epk = _key(example.epk).public_key if example.epk else None
    named = {name: octets[name] for name in ("apu", "apv", "iv", "tag") if name in octets}
    agreement = Agreement(epk=epk, **named)
    iv = os.urandom(enc.iv_bytes)
    sealed = sealing.seal(enc, octets["cek"], iv, _MESSAGE, _MESSAGE)
    with transport.unwrapped(keys, octets["encrypted_key"], agreement) as unwrapped:
        require(content.opens(unwrapped.cek, enc, sealed, _MESSAGE, _MESSAGE))


_COMPARISONS: Final[Mapping[Family, Callable[[Keys, Any, Example], None]]] = MappingProxyType(
    {Family.SIGNATURE: _signed, Family.MAC: _computed, Family.CONTENT: _sealed}
)


def _value(example: Example) -> bytes:
    """Return the secret key of an example."""
    return urlsafe_b64decode(dict(example.key)["k"].encode())


@cache  # whole RSA keys are looked at for a tenth of a second
def _key(members: frozenset[tuple[str, str]]) -> Any:
    """Return the JWK of ``members``."""
    return jwk.import_key(dict(members))
