"""The protected header of a JWE that is made here (RFC 7516 §4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import hsm
from app.jose import encoding
from app.jwk import write_public


@dataclass(frozen=True, slots=True, kw_only=True)
class JweHeader:
    """The protected header of a JWE, whole once it is known how its recipient gets the CEK."""

    names: Mapping[str, str]
    party_info: Mapping[str, str | None]
    others: Mapping[str, Any]
    aad: str | None

    @property
    def agreement(self) -> hsm.Agreement:
        """What both sides agree with, as far as it is known before."""
        apu, apv = (encoding.decode(self.party_info[name] or "") for name in ("apu", "apv"))
        return hsm.Agreement(apu=apu, apv=apv)

    def agreed(self, made: hsm.Agreement) -> dict[str, Any]:
        """Return what it holds of how the recipient gets the CEK."""
        agreed = {
            "epk": made.epk and write_public(made.epk),
            **self.party_info,
            "iv": encoding.encode(made.iv) or None,
            "tag": encoding.encode(made.tag) or None,
        }
        return {name: value for name, value in agreed.items() if value is not None}

    def protected(self, made: hsm.Agreement) -> str:
        """Return it encoded."""
        return encoding.header({**self.agreed(made), **self.others}, **self.names)

    def additional_data(self, made: hsm.Agreement) -> bytes:
        """Return what it and ``aad`` are authenticated as."""
        return encoding.additional_data(self.protected(made), self.aad)

    def jwe(self, made: hsm.Encrypted) -> dict[str, Any]:
        """Return the flattened JWE."""
        jwe = {
            "protected": self.protected(made.agreement),
            "encrypted_key": made.encrypted_key,
            **made.sealed._asdict(),
        }
        return jwe if self.aad is None else jwe | {"aad": self.aad}
