"""What one key is, as its JWK says, and which algorithms it performs."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from hsm.algorithms.families import Algorithm, SignatureAlgorithm
from hsm.algorithms.kinds import CURVES_BY_CRV, KINDS, Curve, KeyKind
from hsm.algorithms.tables import ALGORITHMS

ByCrv = Mapping[str | None, tuple[Algorithm, ...]]


def _by_crv(kty: str, alg: str | None) -> ByCrv:
    found: dict[str | None, tuple[Algorithm, ...]] = {}
    for row in ALGORITHMS.values():
        for kind, curve in row.keys:
            is_unbound = kind.has_one_family or not row.is_bound_only
            if kty in kind.ktys and (alg == row.name or (alg is None and is_unbound)):
                crv = curve.crv if curve else None
                found[crv] = (*found.get(crv, ()), row)
    return MappingProxyType(found)


_PERFORMED: Final[Mapping[tuple[str, str | None], ByCrv]] = MappingProxyType(
    {
        (kty, alg): _by_crv(kty, alg)
        for kind in KINDS
        for kty in kind.ktys
        for alg in (None, *ALGORITHMS)
    }
)


def algorithms_by_crv(kty: str, alg: str | None) -> ByCrv:
    """Return what keys of ``kty`` perform, by their ``crv``: ``alg``, or all that need no binding.

    There is nothing in it for names that do not go together.
    """
    return _PERFORMED.get((kty, alg), MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpec:
    """What a key is, as its JWK says. ``bits`` is the length of an RSA modulus or an oct key.

    With ``signs_digests`` the token lets it sign digests that somebody else has taken, too, and
    with ``unwraps_keys`` unwrap in one step those that are imported.
    """

    kty: str
    alg: str | None = None
    crv: str | None = None
    bits: int | None = None
    signs_digests: bool = False
    unwraps_keys: bool = False

    @property
    def algorithms(self) -> tuple[Algorithm, ...]:
        """Every algorithm that the key may perform: its ``alg``, or all of its kty and curve."""
        return algorithms_by_crv(self.kty, self.alg).get(self.crv, ())

    @property
    def digest_algorithms(self) -> tuple[SignatureAlgorithm, ...]:
        """Those of them that can sign a digest which somebody else has taken."""
        rows = (row for row in self.algorithms if isinstance(row, SignatureAlgorithm))
        return tuple(row for row in rows if row.digest_mechanism)

    @property
    def kind(self) -> KeyKind:
        """The kind of the key; all algorithms of one key share it."""
        return self.curve.kind if self.curve else self.algorithms[0].kind

    @property
    def curve(self) -> Curve | None:
        """The curve of the key, if it is on one."""
        return CURVES_BY_CRV[self.crv] if self.crv else None

    def permits(self, name: str) -> bool:
        """Tell whether the key may perform the algorithm ``name``."""
        return ALGORITHMS.get(name) in self.algorithms

    def permits_under_any_name(self, name: str) -> bool:
        """Tell whether the key may perform the algorithm that has ``name`` for one of its names.

        That is for signatures that others made; the key itself signs with its own names.
        """
        claimed = KeySpec(kty=self.kty, alg=name, crv=self.crv).algorithms
        return any(row.first_name == own.first_name for row in claimed for own in self.algorithms)
