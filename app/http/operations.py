"""The operations on messages: each is one row, whether it comes alone or in a batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import hsm
from app import current_request
from app.http.endpoint import Audit, Endpoint
from app.http.failures import ALGORITHM, TOKEN, Failures
from app.jose import encoding
from app.keys.batch.series import Made, decrypt_all, encrypt_all, mac_all, sign_all, verify_all
from app.keys.general.encryption import encrypt_general, encrypt_to
from app.keys.general.signing import sign_general
from app.keys.sets.use import mac_by_set, verify_mac_by_set
from app.keys.use import KeyUse
from app.kid import KeySetName, is_kid
from app.observability.kinds import Kind
from app.rights import Principal, Right
from app.schemas.fields import Offers
from app.schemas.loading import load
from app.schemas.messages.addressed import names_of
from app.schemas.messages.encryption import (
    DecryptRequest,
    DecryptResponse,
    EncryptRequest,
    EncryptResponse,
    GeneralEncryptResponse,
    RecipientResponse,
)
from app.schemas.messages.serializations import COMPACT, GENERAL, JWE_PARTS
from app.schemas.messages.signing import (
    GeneralSignResponse,
    GeneralValidResponse,
    MacRequest,
    MacResponse,
    SignRequest,
    SignResponse,
    ValidResponse,
    VerifyRequest,
)
from app.schemas.schema import RequestSchema, ResponseSchema

Body = dict[str, Any]

_JWE: Final = EncryptResponse()
_GENERAL_JWE: Final = GeneralEncryptResponse()
_RECIPIENT: Final = RecipientResponse()
_JWS: Final = SignResponse()
_GENERAL_JWS: Final = GeneralSignResponse()
_PLAINTEXT: Final = DecryptResponse()
_VALID: Final = ValidResponse()
_SEVERAL_VALID: Final = GeneralValidResponse()
_MAC_VALUE: Final = MacResponse()


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageOperation:
    """What is taken, done and answered; ``endpoint`` names it in logs and metrics."""

    endpoint: str
    request: RequestSchema
    answers: tuple[ResponseSchema, ...]
    call: Callable[[KeyUse, Principal, Body], Any]
    series: "Series | None" = None

    def load(self, members: dict[str, Any], offers: Offers) -> Body:
        """Return the body of a request, checked."""
        body: Body = load(self.request, members, offers)
        return body

    def perform(self, keys: KeyUse, principal: Principal, body: Body) -> Body:
        """Return the body of the answer."""
        answer: Body = self.call(keys, principal, body)
        return answer

    def perform_all(self, keys: KeyUse, principal: Principal, bodies: Sequence[Body]) -> list[Body]:
        """Return the bodies of the answers to the first of ``bodies``, which are alike.

        It ends before one that fails, perhaps the first: that one is to be performed alone.
        """
        if self.series is None:
            return []
        made = self.series.call(keys, principal, bodies)
        return [self.series.told(one, body) for one, body in zip(made, bodies, strict=False)]

    def alike(self, body: Body) -> tuple[Any, ...] | None:
        """Return what a loaded body has in common with others that can be one series with it.

        There is nothing if it can be none. A key that is called by its alias is looked at each
        time, for the logs have its kid.
        """
        alike = self.series.alike(body) if self.series else None
        return (self.endpoint, *alike) if alike and is_kid(alike[0]) else None

    @property
    def differs_in_data(self) -> bool:
        """Tell whether bodies that are alike differ in ``data`` alone."""
        return self.series is not None and self.series.differs_in_data

    def alone(self, *, says: str, failures: Failures = ()) -> Endpoint:
        """Return the declaration of the endpoint that does it for a request of its own."""
        _, _, name = self.endpoint.partition(".")
        return Endpoint(
            "POST",
            f"/{name}",
            body=self.request,
            answers=self.answers,
            says=says,
            needs=(Right(name),),
            kind=Kind(name),
            audit=Audit.USE,
            failures=(*ALGORITHM, *TOKEN, *failures),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """How bodies that differ in their data alone are performed together.

    ``alike`` returns what they have in common, the kid first, and ``None`` for what is performed
    alone; ``call`` is of ``app.keys.batch.series``, and ``told`` makes the body of an answer.
    ``differs_in_data`` if nothing but ``data`` may differ, which is then checked by itself.
    """

    alike: Callable[[Body], tuple[Any, ...] | None]
    call: Callable[[KeyUse, Principal, Sequence[Body]], Made]
    told: Callable[[Mapping[str, Any], Body], Body]
    differs_in_data: bool = False


def kids_of(body: Body) -> frozenset[str]:
    """Return the kids that a loaded body names; an empty one if it brings its key along."""
    if "protected" in body:
        kids: frozenset[str] = body["protected"].kids
        return kids
    several = body.get("recipients") or body.get("signatures") or body.get("signers") or ()
    return names_of(several, body.get("kid"))


def _encrypt(keys: KeyUse, principal: Principal, body: Body) -> Any:
    """Return a JWE of the caller's data."""
    if (serialization := body.pop("serialization")) == GENERAL:
        made = encrypt_general(keys, principal, **body)
        recipients = [_RECIPIENT.dump(one) for one in made["recipients"]]
        return _GENERAL_JWE.dump(made | {"recipients": recipients})
    jwe = encrypt_to(**body) if "jwk" in body else keys.encrypt(principal, **body)
    return _told_jwe(jwe, {"serialization": serialization})


def _told_jwe(jwe: Mapping[str, Any], body: Body) -> Body:
    """Return ``jwe`` in the serialization that ``body`` asks for."""
    if body["serialization"] == COMPACT:
        return {"jwe": encoding.compact(*(jwe[name] for name in JWE_PARTS))}
    return _JWE.dump(jwe)


def _decrypt(keys: KeyUse, principal: Principal, body: Body) -> Any:
    """Return the plaintext of a JWE."""
    sealed, aad = hsm.Sealed(body["iv"], body["ciphertext"], body["tag"]), body["aad"]
    if "recipients" in body:
        recipients, kid = body["recipients"], body["kid"]
        kid, data = keys.decrypt_general(principal, recipients, kid=kid, sealed=sealed, aad=aad)
        return _PLAINTEXT.dump({"kid": kid, "data": data})
    header, encrypted_key = body["protected"], body["encrypted_key"] or b""
    data = keys.decrypt(principal, header, encrypted_key=encrypted_key, sealed=sealed, aad=aad)
    return _PLAINTEXT.dump({"kid": header.kid, "data": data})


def _sign(keys: KeyUse, principal: Principal, body: Body) -> Any:
    """Return a JWS over the caller's data."""
    if (serialization := body.pop("serialization")) == GENERAL:
        jws = sign_general(keys, principal, **body)
        signatures = [_JWS.dump(one) for one in jws["signatures"]]
        return _GENERAL_JWS.dump(jws | {"signatures": signatures})
    current_request.name(alg=body["alg"])  # which a whole header may have said alone
    jws = keys.sign(principal, **body)
    return _told_jws(jws, body | {"serialization": serialization})


def _told_jws(jws: Mapping[str, Any], body: Body) -> Body:
    """Return ``jws`` in the serialization that ``body`` asks for."""
    is_compact = body["serialization"] == COMPACT
    return _compact_jws(jws, body) if is_compact else _JWS.dump(jws)


def _compact_jws(jws: Mapping[str, Any], body: Body) -> Body:
    """Return ``jws`` with its payload, or detached where that is not encoded (RFC 7797 §5.2)."""
    header = body["header"]
    payload = body["data"] if header is None or header.is_encoded else ""
    return {"jws": encoding.compact(jws["protected"], payload, jws["signature"])}


def _verify(keys: KeyUse, principal: Principal, body: Body) -> Any:
    """Tell whether a JWS is valid."""
    if "signatures" in body:
        return _verify_general(keys, principal, body)
    header, data, signature = body["protected"], body["data"], body["signature"]
    if (jwk := body["jwk"]) is not None:
        signing_input = encoding.signing_input(header.protected, data, is_encoded=header.is_encoded)
        return {"valid": hsm.is_valid(jwk.key, header.alg, signing_input, signature)}
    valid = keys.verify(principal, header, data=data, signature=signature)
    return _VALID.dump({"kid": header.kid, "valid": valid})


def _verify_general(keys: KeyUse, principal: Principal, body: Body) -> Any:
    """Tell which of several signatures are valid; those of keys of others are not looked at."""
    signatures, kid = body["signatures"], body["kid"]
    valid = keys.verify_general(principal, signatures, kid=kid, data=body["data"])
    told = [{"kid": one.kid, "valid": its} for one, its in zip(signatures, valid, strict=True)]
    ours = [one for one in told if one["valid"] is not None]
    name = kid or next((one["kid"] for one in ours), None)
    is_valid = bool(ours) and all(one["valid"] for one in ours)
    return _SEVERAL_VALID.dump({"kid": name, "valid": is_valid, "signatures": told})


def _mac(keys: KeyUse, principal: Principal, body: Body) -> Any:
    """Return the MAC of the data, or a JWS with it; or tell whether the given one is it."""
    if body.pop("serialization", None) is not None:
        return _compact_jws(keys.sign_with_mac(principal, **body), body)
    kid, mac = body["kid"], body["mac"]
    if isinstance(kid, KeySetName):
        return _mac_by_set(keys, principal, body)
    if mac is not None:
        return _VALID.dump({"kid": kid, "valid": keys.verify_mac(principal, **body)})
    del body["mac"]
    return _MAC_VALUE.dump({"kid": kid, "mac": keys.mac(principal, **body)})


def _mac_by_set(keys: KeyUse, principal: Principal, body: Body) -> Any:
    """Do the same by the name of a key set; the answer names the version."""
    if body["mac"] is not None:
        kid, is_valid = verify_mac_by_set(keys, principal, **body)
        return _VALID.dump({"kid": kid, "valid": is_valid})
    del body["mac"]
    kid, mac = mac_by_set(keys, principal, **body)
    return _MAC_VALUE.dump({"kid": kid, "mac": mac})


def _row(
    endpoint: str,
    request: RequestSchema,
    *answers: ResponseSchema,
    call: Any,
    series: Series | None = None,
) -> tuple[str, MessageOperation]:
    name = endpoint.rpartition(".")[2]
    return name, MessageOperation(
        endpoint=endpoint, request=request, answers=answers, call=call, series=series
    )


def _alike_but_for_data(body: Body) -> tuple[Any, ...]:
    """Return the kid and all other members; ``repr`` tells ``None`` from a text."""
    return body["kid"], *((name, repr(body[name])) for name in body if name != "data")


def _alike_if_plain(body: Body) -> tuple[Any, ...] | None:
    """Return it of what makes one message for, or by, one key with a header of ours alone."""
    is_plain = body["serialization"] != GENERAL and body["header"] is None
    return _alike_but_for_data(body) if is_plain else None


def _alike_if_direct(body: Body) -> tuple[Any, ...] | None:
    return _alike_if_plain(body) if body.get("alg") == hsm.DIRECT else None


def _alike_if_mac(body: Body) -> tuple[Any, ...] | None:
    is_new = "serialization" not in body and body["mac"] is None
    return _alike_but_for_data(body) if is_new else None


def _alike_by_header(body: Body) -> tuple[Any, ...] | None:
    """Return kid and algorithm of what names one key of ours, and needs no other to be read."""
    header = body.get("protected")
    if header is None or body.get("jwk") is not None or len(header.kids) > 1:
        return None
    return header.kid, header.alg, header.enc


def _alike_if_sealed_directly(body: Body) -> tuple[Any, ...] | None:
    header = body.get("protected")
    is_direct = header and header.alg == hsm.DIRECT and header.agreement == hsm.Agreement()
    return _alike_by_header(body) if is_direct else None


_ENCRYPTIONS: Final = Series(
    alike=_alike_if_direct, call=encrypt_all, told=_told_jwe, differs_in_data=True
)
_DECRYPTIONS: Final = Series(
    alike=_alike_if_sealed_directly,
    call=decrypt_all,
    told=lambda plaintext, _body: _PLAINTEXT.dump(plaintext),
)
_SIGNATURES: Final = Series(
    alike=_alike_if_plain, call=sign_all, told=_told_jws, differs_in_data=True
)
_VERIFICATIONS: Final = Series(
    alike=_alike_by_header, call=verify_all, told=lambda valid, _body: _VALID.dump(valid)
)
_CODES: Final = Series(
    alike=_alike_if_mac,
    call=mac_all,
    told=lambda mac, _body: _MAC_VALUE.dump(mac),
    differs_in_data=True,
)

OPERATIONS: Final[Mapping[str, MessageOperation]] = MappingProxyType(
    dict(
        (
            _row(
                *("encryption.encrypt", EncryptRequest(), _JWE, _GENERAL_JWE),
                call=_encrypt,
                series=_ENCRYPTIONS,
            ),
            _row(
                "encryption.decrypt",
                DecryptRequest(),
                _PLAINTEXT,
                call=_decrypt,
                series=_DECRYPTIONS,
            ),
            _row("signing.sign", SignRequest(), _JWS, _GENERAL_JWS, call=_sign, series=_SIGNATURES),
            _row(
                "signing.verify",
                VerifyRequest(),
                _VALID,
                _SEVERAL_VALID,
                call=_verify,
                series=_VERIFICATIONS,
            ),
            _row("signing.mac", MacRequest(), _MAC_VALUE, _VALID, call=_mac, series=_CODES),
        )
    )
)
