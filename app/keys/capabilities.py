"""What this service can do, on the token that it has and as it is set: for programs and people.

Everything is derived: from the proof that the token gave at boot, the settings, and the tables.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import hsm
from app.config import MAX_BODY_BYTES, Config
from app.jwk import KEY_TYPES
from app.keys import budget
from app.rights import Right
from app.schemas.batch import MOST_REQUESTS
from app.schemas.catalogue import MOST_KEYS
from app.schemas.fields import KEY_TRANSPORT, Offers
from app.schemas.random import MOST_BYTES

Members = dict[str, Any]

_SIGNING: Final = (Right.SIGN, Right.VERIFY)
_MAC: Final = (Right.MAC,)
_ENCRYPTION: Final = (Right.ENCRYPT, Right.DECRYPT)
_TRANSPORT: Final = (*_ENCRYPTION, Right.UNWRAP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Says of each ``alg`` and ``enc`` which operations are offered, and where a CEK is."""

    config: Config

    def describe(self, offers: Offers, keepable: hsm.Keepable = hsm.NOTHING_KEPT) -> Members:
        """Return all of it, as ``offers`` and ``keepable`` have it for this token."""
        return {
            "fips": self.config.fips,
            "cek": self.config.cek,
            "signatures": {
                name: _keys_of(row, offers[name]) | _operations(_SIGNING, offers[name])
                for name, row in hsm.SIGNATURES.items()
            },
            "macs": {
                name: _keys_of(row, offers[name]) | _operations(_MAC, offers[name])
                for name, row in hsm.MACS.items()
            },
            "key_managements": {
                name: members | {"enc": dict(_with_each_enc(name, offers))}
                for name, members in _key_managements(offers)
            },
            "content_encryptions": {
                name: _bits_of(row) | _status(offers[name]) | _most_of(offers[name])
                for name, row in hsm.CONTENT_ENCRYPTIONS.items()
            },
            "storage": {"default": self.config.storage, "wrapped_keys": _kept_wrapped(keepable)},
            "limits": self._limits(),
        }

    def _limits(self) -> Members:
        return {
            "body_bytes": MAX_BODY_BYTES,
            "batch_requests": MOST_REQUESTS,
            "encryptions_per_key": budget.MOST_ENCRYPTIONS,
            "listed_keys": MOST_KEYS,
            "published_keys": self.config.jwks_keys,
            "random_bytes": MOST_BYTES,
        }


def _kept_wrapped(keepable: hsm.Keepable) -> Members:
    """Return whether the registry may keep keys, and which the token does not wrap for it."""
    if keepable.kek is None:
        return {"offered": False, "reason": hsm.NO_KEK}
    refused = [
        {"kty": kty} | ({"crv": crv} if crv else {}) | {"reason": reason}
        for kty, crv, reason in keepable.refused()
    ]
    return {"offered": True, "refused": refused}


def _key_managements(offers: Offers) -> Iterator[tuple[str, Members]]:
    yield hsm.DIRECT, {"keys": [{"kty": "oct"}]}
    for name, row in hsm.KEY_MANAGEMENTS.items():
        yield name, _keys_of(row, offers[name])


def _with_each_enc(alg: str, offers: Offers) -> Iterator[tuple[str, Members]]:
    """Give the operations of ``alg`` with each content encryption."""
    operations = _TRANSPORT if alg in KEY_TRANSPORT.names else _ENCRYPTION
    for enc in hsm.CONTENT_ENCRYPTIONS:
        alone = offers[enc]
        offer = offers[alg].with_enc(enc) if alg in offers and alone.is_offered else alone
        members = _operations(operations, offer)
        yield enc, members | {"cek": offer.residency} if offer.is_offered else members


def _operations(operations: Iterable[Right], offer: hsm.Offer) -> Members:
    return {"operations": {str(operation): _status(offer) for operation in operations}}


def _status(offer: hsm.Offer) -> Members:
    return {"offered": True} if offer.is_offered else {"offered": False, "reason": offer.reason}


def _most_of(offer: hsm.Offer) -> Members:
    return {} if offer.most_bytes is None else {"most_bytes": offer.most_bytes}


def _keys_of(row: hsm.Algorithm, offer: hsm.Offer) -> Members:
    """Return which keys perform ``row``, and why those on other curves do not here."""
    keys = [
        {"kty": kty} | ({"crv": curve.crv} if curve else {})
        for kind, curve in row.keys
        for kty in kind.ktys
    ]
    refused = dict(offer.refused_crvs)
    return {"keys": keys} | _bits_of(row) | ({"refused_crvs": refused} if refused else {})


def _bits_of(row: hsm.Algorithm) -> Members:
    """Return the sizes of keys that are made, and of those that are imported."""
    sizes = KEY_TYPES[row.kind.ktys[0]].sizes(row.name)
    if sizes is None:
        return {}
    imported = {"min": sizes.imported[0], "max": sizes.imported[-1]}
    return {"bits": {"generated": list(sizes.generated), "imported": imported}}


# --- For people ---

_YES: Final = "yes"


class AlgorithmRow(NamedTuple):
    """Algorithms that are shown as one, with these ``encs``: ``place`` is where a CEK is."""

    names: tuple[str, ...]
    encs: tuple[str, ...]
    keys: str
    offered: str
    place: str

    @property
    def takes_every_enc(self) -> bool:
        """Whether they do not differ by content encryption."""
        return len(self.encs) == len(hsm.CONTENT_ENCRYPTIONS)

    @property
    def is_offered(self) -> bool:
        """Whether they are offered; ``offered`` says why not."""
        return self.offered == _YES


class _Line(NamedTuple):
    """What lines have in common that are shown as one."""

    encs: tuple[str, ...]
    ktys: tuple[str, ...]
    offered: str
    place: str


def algorithm_rows(capabilities: Members) -> list[AlgorithmRow]:
    """Return algorithms with their keys, whether they are offered, and where."""
    lines: dict[_Line, tuple[list[str], list[Members]]] = {}
    for line, name, members in _lines(capabilities):
        names, keys = lines.setdefault(line, ([], []))
        names.append(name)
        keys.append(members)
    return [
        AlgorithmRow(tuple(names), line.encs, _keys(line.ktys, keys), line.offered, line.place)
        for line, (names, keys) in lines.items()
    ]


def _lines(capabilities: Members) -> Iterator[tuple[_Line, str, Members]]:
    for name, members in (capabilities["signatures"] | capabilities["macs"]).items():
        status = next(iter(members["operations"].values()))
        yield _Line((), _ktys(members), _shown(status), "token"), name, members
    for name, members in capabilities["key_managements"].items():
        for (offered, place), encs in _by_status(members["enc"]).items():
            yield _Line(tuple(encs), _ktys(members), offered, place), name, members


def _by_status(encs: Mapping[str, Members]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for enc, members in encs.items():
        status = _shown(members["operations"][Right.ENCRYPT])
        found.setdefault((status, members.get("cek", "token")), []).append(enc)
    return found


def _shown(status: Members) -> str:
    return _YES if status["offered"] else f"no: {status['reason']}"


def _ktys(members: Members) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key["kty"] for key in members["keys"]))


def _keys(ktys: Sequence[str], of: Sequence[Members]) -> str:
    return ", ".join(f"{kty} {', '.join(_sizes(kty, of))}".rstrip() for kty in ktys)


def _sizes(kty: str, of: Sequence[Members]) -> Iterable[str]:
    """Return curves, or the sizes unless the algorithm alone decides."""
    crvs = [key["crv"] for one in of for key in one["keys"] if key["kty"] == kty and "crv" in key]
    bits = of[0].get("bits", {}).get("generated", [])
    return dict.fromkeys(crvs or (map(str, bits) if len(bits) > 1 else ()))
