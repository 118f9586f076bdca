"""Which keys exist for callers: one row for each key or pair, and the only SQL of the service.

Neither PIN nor key bytes are ever in it. The row says which keys exist, the token what they are.
"""

from app.registry.counts import Group
from app.registry.idempotency import Repetition
from app.registry.keysets.keysets import KeySets
from app.registry.keysets.records import KeySet, Policy, Version, VersionState
from app.registry.keysets.steps import Overtaken
from app.registry.pages import Filters
from app.registry.records import LASTING, VISIBLE, Found, Key, Origin, Residency, State
from app.registry.registry import AlreadyRequested, Registry, migrate
from app.registry.revisions import Age, Revision, compared, revision_at
from app.registry.rows.additions import Answer
from app.registry.rows.named import Granted
from app.registry.rows.remarks import Remarks
from app.registry.tags import Publication, Tagging
from app.registry.tokens import ApiToken, Credentials
from app.registry.watch import Watch

__all__ = [
    "LASTING",
    "VISIBLE",
    "Age",
    "AlreadyRequested",
    "Answer",
    "ApiToken",
    "Credentials",
    "Filters",
    "Found",
    "Granted",
    "Group",
    "Key",
    "KeySet",
    "KeySets",
    "Origin",
    "Overtaken",
    "Policy",
    "Publication",
    "Registry",
    "Remarks",
    "Repetition",
    "Residency",
    "Revision",
    "State",
    "Tagging",
    "Version",
    "VersionState",
    "Watch",
    "compared",
    "migrate",
    "revision_at",
]
