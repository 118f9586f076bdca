"""Software tokens to try the service on: how each is made, what it needs, and what it lacks."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from scripts.tokens.kryoptic import Kryoptic
from scripts.tokens.make import (
    ANY_SIZE,
    LABEL,
    ML_DSA,
    NEWER_CURVES,
    OAEP_BY_ITSELF,
    WRAPPED_IMPORTS,
    SoftwareToken,
    imported_wrapped,
)
from scripts.tokens.nss import Nss
from scripts.tokens.opencryptoki import OpenCryptoki
from scripts.tokens.softhsm import SoftHsm

TOKENS: Final[Mapping[str, SoftwareToken]] = MappingProxyType(
    {
        "softhsm": SoftHsm(),
        "nss": Nss(),
        "kryoptic": Kryoptic("system", lacks=[*NEWER_CURVES, *ML_DSA]),
        "kryoptic-pqc": Kryoptic("pqc", lacks=[imported_wrapped("X25519")]),
        "opencryptoki": OpenCryptoki(),
    }
)

__all__ = [
    "ANY_SIZE",
    "LABEL",
    "OAEP_BY_ITSELF",
    "TOKENS",
    "WRAPPED_IMPORTS",
    "imported_wrapped",
]
