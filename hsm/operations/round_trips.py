"""Round trips: whether a key undoes what it has done. Each family has one."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from hsm.algorithms.families import Family
from hsm.cryptoki.keys import Keys
from hsm.operations import content, mac, signing

RoundTrip = Callable[[Keys, Any, bytes, bytes], bool]
"""Tells whether what the keys make of a message with a row is taken for what is claimed."""

ROUND_TRIPS: Final[Mapping[Family, RoundTrip]] = MappingProxyType(
    {
        Family.SIGNATURE: signing.round_trip,
        Family.MAC: mac.round_trip,
        Family.CONTENT: content.round_trip,
    }
)
"""By family; that of key management needs a path too: ``jwe.round_trip``."""
