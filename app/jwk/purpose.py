"""What a JWK says that its key is for: ``use`` and ``key_ops`` (RFC 7517 §4.2, §4.3)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import hsm
from app.errors import BadRequest
from hsm import KeySpec

_SIGNING: Final = frozenset({"sign", "verify"})
_ENCRYPTION: Final = frozenset({"encrypt", "decrypt", "wrapKey", "unwrapKey"})
_AGREEMENT: Final = frozenset({"deriveKey", "deriveBits"}) | _ENCRYPTION
_EVERY: Final = _SIGNING | _AGREEMENT
_OF_USE: Final[Mapping[str | None, frozenset[str]]] = MappingProxyType(
    {"sig": _SIGNING, "enc": _AGREEMENT}
)
_OF_ALG: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    dict.fromkeys(hsm.ALGORITHMS, _ENCRYPTION)
    | dict.fromkeys((*hsm.SIGNATURES, *hsm.MACS), _SIGNING)
    | dict.fromkeys(hsm.KEY_AGREEMENTS, _AGREEMENT)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """The operations that ``use`` and ``key_ops`` leave, each: all of them if it says nothing."""

    use: frozenset[str] = _EVERY
    key_ops: frozenset[str] = _EVERY

    @classmethod
    def of(cls, use: str | None, key_ops: Collection[str] | None) -> "Purpose":
        """Return what the members say; values that are not registered say nothing."""
        operations = _EVERY.intersection(key_ops or ())
        return cls(use=_OF_USE.get(use, _EVERY), key_ops=operations or _EVERY)

    def of_key(self, spec: KeySpec, encryption_alg: str | None) -> KeySpec:
        """Return what a key of ``spec`` is with that purpose.

        One without ``alg`` that is not for signatures is for ``encryption_alg``, if it can be.
        Raises ``BadRequest`` if the members contradict each other, or what the key does.
        """
        operations = self.use & self.key_ops
        if not operations:
            raise BadRequest("Fields 'use' and 'key_ops' contradict each other")
        bound = replace(spec, alg=spec.alg or encryption_alg)
        if bound.algorithms and not operations & _SIGNING:
            spec = bound
        for name, said in (("use", self.use), ("key_ops", self.key_ops)):
            if not any(said & _OF_ALG[row.name] for row in spec.algorithms):
                raise BadRequest(f"Field '{name}' contradicts {_named(spec)}")
        return spec


def _named(spec: KeySpec) -> str:
    return f"algorithm '{spec.alg}'" if spec.alg else f"curve '{spec.crv}'"
