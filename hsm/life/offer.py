"""What a token offers of one algorithm, and why not the rest."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from hsm.algorithms.families import Algorithm
from hsm.algorithms.keyspec import KeySpec
from hsm.errors import UnsupportedAlgorithm

Residence = Literal["token", "process"]


class Offer(NamedTuple):
    """Whether an algorithm is offered: ``reason`` says why not, ``residency`` where a CEK is.

    ``refused_crvs`` says why not with keys on these curves, where it is with others. Key management
    answers all this for each ``enc`` too, by name. ``most_bytes`` is how long a plaintext may be,
    where the token takes less than callers may send.
    """

    reason: str | None = None
    residency: Residence = "token"
    refused_crvs: Mapping[str, str] = MappingProxyType({})
    by_enc: Mapping[str, "Offer"] = MappingProxyType({})
    most_bytes: int | None = None

    @property
    def is_offered(self) -> bool:
        """Nothing speaks against it."""
        return self.reason is None

    def refusal(self, crv: str | None) -> str | None:
        """Return why it is not offered with keys on ``crv``, or ``None`` if it is."""
        return self.reason or self.refused_crvs.get(crv or "")

    def with_enc(self, enc: str) -> "Offer":
        """Return whether it is offered together with ``enc``."""
        return self.by_enc.get(enc, self)


def offer_of(row: Algorithm, refusals: Mapping[str, str], residency: Residence) -> Offer:
    """Return the offer of ``row``: there is none if it is refused with all of its keys."""
    if len(refusals) == len(row.keys):
        return Offer(next(iter(refusals.values())))
    return Offer(None, residency, MappingProxyType(dict(refusals)))


def first_offered(spec: KeySpec, offers: Mapping[str, Offer]) -> Algorithm:
    """Return the first algorithm of such keys that is offered; it may be none any more.

    Raises ``UnsupportedAlgorithm`` then.
    """
    reasons = [(row, offers[row.name].refusal(spec.crv)) for row in spec.algorithms]
    for row, reason in reasons:
        if reason is None:
            return row
    refused, reason = reasons[0]
    raise UnsupportedAlgorithm.not_offered(refused.name, str(reason))
