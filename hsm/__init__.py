"""The PKCS#11 adapter: JOSE algorithms on keys that stay in the token.

It knows nothing of HTTP, JSON, users or the database. What is exported here is all that ``app``
may use.
"""

from hsm.adapter import Hsm
from hsm.adoption import Adoptable
from hsm.algorithms import (
    ALGORITHMS,
    CONTENT_ENCRYPTIONS,
    DIRECT,
    KEY_MANAGEMENTS,
    MACS,
    SIGNATURES,
    WEIERSTRASS_CURVES,
    Algorithm,
    KeySpec,
)
from hsm.connection import Settings
from hsm.content import IV_BYTES, TAG_BYTES, Sealed
from hsm.errors import (
    CryptoFailure,
    DecryptionFailed,
    HsmError,
    KeyNotFound,
    TokenUnavailable,
    UnsupportedAlgorithm,
    WrongResult,
)
from hsm.latch import file_lock
from hsm.material import PrivateKey, PublicKey
from hsm.observer import Observer
from hsm.pool import Sessions
from hsm.state import Phase, State
from hsm.token import Offer

__all__ = [
    "ALGORITHMS",
    "CONTENT_ENCRYPTIONS",
    "DIRECT",
    "IV_BYTES",
    "KEY_MANAGEMENTS",
    "MACS",
    "SIGNATURES",
    "TAG_BYTES",
    "WEIERSTRASS_CURVES",
    "Adoptable",
    "Algorithm",
    "CryptoFailure",
    "DecryptionFailed",
    "Hsm",
    "HsmError",
    "KeyNotFound",
    "KeySpec",
    "Observer",
    "Offer",
    "Phase",
    "PrivateKey",
    "PublicKey",
    "Sealed",
    "Sessions",
    "Settings",
    "State",
    "TokenUnavailable",
    "UnsupportedAlgorithm",
    "WrongResult",
    "file_lock",
]
