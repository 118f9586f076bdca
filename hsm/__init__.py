"""The PKCS#11 adapter: JOSE algorithms on keys that stay in the token.

It knows nothing of HTTP, JSON, users or the database. What is exported here is all that ``app``
may use.
"""

from hsm.adapter import Encrypted, Hsm, is_valid
from hsm.adoption import Adoptable
from hsm.agreement import Agreement
from hsm.algorithms import (
    ALGORITHMS,
    CONTENT_ENCRYPTIONS,
    CURVES,
    DIRECT,
    KEY_AGREEMENTS,
    KEY_MANAGEMENTS,
    KEY_WRAPPINGS,
    MACS,
    SIGNATURES,
    WEIERSTRASS_CURVES,
    Algorithm,
    KeySpec,
    algorithms_by_crv,
)
from hsm.content import Sealed
from hsm.errors import (
    Cause,
    CryptoFailure,
    DecryptionFailed,
    HsmError,
    KeyNotFound,
    TokenUnavailable,
    UnsupportedAlgorithm,
    WrongResult,
)
from hsm.examination import Examination, Look, is_whole
from hsm.latch import file_lock
from hsm.material import AgreementKey, PrivateKey, PublicKey
from hsm.module import Product
from hsm.observer import Observer
from hsm.pool import Sessions
from hsm.rates import RATES
from hsm.settings import Settings
from hsm.state import Phase, State
from hsm.token import Offer

__all__ = [
    "ALGORITHMS",
    "CONTENT_ENCRYPTIONS",
    "CURVES",
    "DIRECT",
    "KEY_AGREEMENTS",
    "KEY_MANAGEMENTS",
    "KEY_WRAPPINGS",
    "MACS",
    "RATES",
    "SIGNATURES",
    "WEIERSTRASS_CURVES",
    "Adoptable",
    "Agreement",
    "AgreementKey",
    "Algorithm",
    "Cause",
    "CryptoFailure",
    "DecryptionFailed",
    "Encrypted",
    "Examination",
    "Hsm",
    "HsmError",
    "KeyNotFound",
    "KeySpec",
    "Look",
    "Observer",
    "Offer",
    "Phase",
    "PrivateKey",
    "Product",
    "PublicKey",
    "Sealed",
    "Sessions",
    "Settings",
    "State",
    "TokenUnavailable",
    "UnsupportedAlgorithm",
    "WrongResult",
    "algorithms_by_crv",
    "file_lock",
    "is_valid",
    "is_whole",
]
