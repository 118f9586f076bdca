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
        apu, apv = self.party_info["apu"], self.party_info["apv"]
        return hsm.Agreement(
            apu=encoding.decode(apu) if apu else b"", apv=encoding.decode(apv) if apv else b""
        )

    def agreed(self, made: hsm.Agreement) -> dict[str, Any]:
        """Return what it holds of how the recipient gets the CEK."""
        ephemeral = {"epk": write_public(made.epk)} if made.epk else {}
        given = {name: text for name, text in self.party_info.items() if text is not None}
        wrapping = {"iv": made.iv, "tag": made.tag} if made.tag else {}
        return ephemeral | given | {name: encoding.encode(part) for name, part in wrapping.items()}

    def of_recipient(self, made: hsm.Agreement) -> dict[str, Any]:
        """Return it as the header of one recipient (RFC 7516 §7.2.1)."""
        return {**self.names, **self.agreed(made)}

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
