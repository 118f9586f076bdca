"""Software tokens to try the service on: how each is made, what it needs, and what it lacks."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from scripts.tokens.kryoptic import Kryoptic
from scripts.tokens.make import (
    ANY_SIZE,
    COUNTED,
    IMPORTS,
    LABEL,
    ML_DSA,
    NEWER_CURVES,
    NOT_DECRYPTING,
    OAEP_BY_ITSELF,
    SENSITIVE,
    SEVERAL,
    TOLD,
    UNCHANGED,
    UNUSED,
    WRAPPED_IMPORTS,
    SoftwareToken,
    digests_signed_by,
    imported_wrapped,
)
from scripts.tokens.nss import Nss
from scripts.tokens.opencryptoki import OpenCryptoki
from scripts.tokens.p11_kit import P11Kit
from scripts.tokens.softhsm import SoftHsm
from scripts.tokens.tpm import Tpm

TOKENS: Final[Mapping[str, SoftwareToken]] = MappingProxyType(
    {
        "softhsm": SoftHsm(),
        "nss": Nss(),
        "kryoptic": Kryoptic("system", lacks=[*NEWER_CURVES, *ML_DSA]),
        "kryoptic-pqc": Kryoptic("pqc"),
        "opencryptoki": OpenCryptoki(),
        "tpm": Tpm(),
        "p11-kit": P11Kit(),
    }
)

__all__ = [
    "ANY_SIZE",
    "COUNTED",
    "IMPORTS",
    "LABEL",
    "NOT_DECRYPTING",
    "OAEP_BY_ITSELF",
    "SENSITIVE",
    "SEVERAL",
    "TOKENS",
    "TOLD",
    "UNCHANGED",
    "UNUSED",
    "WRAPPED_IMPORTS",
    "digests_signed_by",
    "imported_wrapped",
]
