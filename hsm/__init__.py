"""The PKCS#11 adapter: JOSE algorithms on keys that stay in the token.

It knows nothing of HTTP, JSON, users or the database. What is exported here is all that ``app``
may use.
"""

from hsm.adapter import Hsm
from hsm.algorithms.families import Algorithm
from hsm.algorithms.keyspec import KeySpec, algorithms_by_crv
from hsm.algorithms.kinds import (
    CURVES,
    CURVES_BY_CRV,
    ML_DSA_CLASSES,
    WEIERSTRASS_CURVES,
    AgreementKey,
    PrivateKey,
    PublicKey,
)
from hsm.algorithms.tables import (
    ALGORITHMS,
    CONTENT_ENCRYPTIONS,
    DIRECT,
    GCM_KEY_WRAPPINGS,
    KEY_AGREEMENTS,
    KEY_MANAGEMENTS,
    KEY_WRAPPINGS,
    MACS,
    SIGNATURES,
)
from hsm.cryptoki.module import Product
from hsm.cryptoki.objects import is_whole
from hsm.cryptoki.pool import Sessions
from hsm.errors import (
    BrokenSeal,
    Cause,
    CryptoFailure,
    DecryptionFailed,
    HsmError,
    KeyNotFound,
    KeyUnavailable,
    TokenUnavailable,
    UnsupportedAlgorithm,
    WrappedKeyRefused,
    WrongResult,
)
from hsm.examination.adoption import Adoptable, OtherName
from hsm.examination.examination import Examination, Finding
from hsm.examination.rates import RATES
from hsm.files import file_lock, replace, replacing
from hsm.importing.imports import WRAPPING_ALGS
from hsm.importing.wrapped_imports import secret_bits
from hsm.life.offer import Offer
from hsm.life.state import Phase, State
from hsm.messages import (
    Agreement,
    Blob,
    Encrypted,
    KeyRef,
    Made,
    Received,
    Recipient,
    Sealed,
    Storage,
)
from hsm.observer import Observer
from hsm.periodic import Periodic
from hsm.settings import Settings
from hsm.software.brought_keys import encrypt_to, encrypt_to_all, is_valid
from hsm.software.certificates import (
    UNREADABLE_CERTIFICATE,
    certificates_of,
    is_certificate_of,
    is_chain,
)
from hsm.software.key_wrapping import wrap_key
from hsm.software.requests import REQUESTING, SUBJECT_NAMES, certificate_request
from hsm.storage.keepable import NOTHING_KEPT, Keepable
from hsm.storage.keeping import Keeping
from hsm.storage.transfer import Parcel
from hsm.storage.wrapped_store import NO_KEK

__all__ = [
    "ALGORITHMS",
    "CONTENT_ENCRYPTIONS",
    "CURVES",
    "CURVES_BY_CRV",
    "DIRECT",
    "GCM_KEY_WRAPPINGS",
    "KEY_AGREEMENTS",
    "KEY_MANAGEMENTS",
    "KEY_WRAPPINGS",
    "MACS",
    "ML_DSA_CLASSES",
    "NOTHING_KEPT",
    "NO_KEK",
    "RATES",
    "REQUESTING",
    "SIGNATURES",
    "SUBJECT_NAMES",
    "UNREADABLE_CERTIFICATE",
    "WEIERSTRASS_CURVES",
    "WRAPPING_ALGS",
    "Adoptable",
    "Agreement",
    "AgreementKey",
    "Algorithm",
    "Blob",
    "BrokenSeal",
    "Cause",
    "CryptoFailure",
    "DecryptionFailed",
    "Encrypted",
    "Examination",
    "Finding",
    "Hsm",
    "HsmError",
    "Keepable",
    "Keeping",
    "KeyNotFound",
    "KeyRef",
    "KeySpec",
    "KeyUnavailable",
    "Made",
    "Observer",
    "Offer",
    "OtherName",
    "Parcel",
    "Periodic",
    "Phase",
    "PrivateKey",
    "Product",
    "PublicKey",
    "Received",
    "Recipient",
    "Sealed",
    "Sessions",
    "Settings",
    "State",
    "Storage",
    "TokenUnavailable",
    "UnsupportedAlgorithm",
    "WrappedKeyRefused",
    "WrongResult",
    "algorithms_by_crv",
    "certificate_request",
    "certificates_of",
    "encrypt_to",
    "encrypt_to_all",
    "file_lock",
    "is_certificate_of",
    "is_chain",
    "is_valid",
    "is_whole",
    "replace",
    "replacing",
    "secret_bits",
    "wrap_key",
]
