"""Bodies of certificates: what is asked for, and what an authority has given."""

import re
from base64 import b64decode
from typing import Any, Final

from marshmallow import fields, validates_schema

import hsm
from app.errors import BadRequest
from app.schemas.fields import (
    SIGNATURE,
    AlgorithmName,
    JsonObject,
    Text,
    fail,
    require,
    require_one,
)
from app.schemas.labels import NamesField
from app.schemas.schema import RequestSchema, ResponseSchema

LONGEST: Final = 64
MOST_NAMES: Final = 100
MOST_CERTIFICATES: Final = 10
LARGEST_BYTES: Final = 16_384
_PRINTABLE: Final = re.compile(r"[A-Za-z0-9 '()+,./:=?-]+")
"""A PrintableString (ITU-T X.680 §41.4), as a serial number of X.520 is one."""
_DNS: Final = re.compile(
    r"(?=.{1,253}\Z)(?:\*\.)?(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*",
    re.ASCII | re.IGNORECASE,
)


class Subject(JsonObject):
    """Whom a certificate is for: parts of a distinguished name, in their order."""

    def _deserialize(
        self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any
    ) -> dict[str, str]:
        subject = self._object(value)
        for name, text in subject.items():
            require(name in hsm.SUBJECT_NAMES, attr, f"may hold: {', '.join(hsm.SUBJECT_NAMES)}")
            require(
                isinstance(text, str) and 0 < len(text) <= LONGEST and text.isprintable(),
                attr,
                f"must hold texts of 1 to {LONGEST} printable characters",
            )
        is_short = len(subject.get("CN", "").encode()) <= LONGEST
        require(is_short, attr, f"must have at most {LONGEST} bytes as 'CN', in UTF-8")
        is_country = re.fullmatch("[A-Z]{2}", subject.get("C", "XX"))
        require(is_country is not None, attr, "must have two capital letters as 'C'")
        is_number = _PRINTABLE.fullmatch(subject.get("serialNumber", "0"))
        require(is_number is not None, attr, "must have a PrintableString as 'serialNumber'")
        return subject


class DnsNames(NamesField):
    """Names of hosts, in ASCII (RFC 5280 §4.2.1.6)."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> list[str]:
        names = super()._deserialize(value)
        require(len(names) <= MOST_NAMES, attr, f"must hold at most {MOST_NAMES} names")
        are_names = all(_DNS.fullmatch(name) for name in names)
        require(are_names, attr, "must hold names of hosts, in ASCII")
        return names


class PemChain(Text):
    """Certificates in PEM (RFC 7468 §5)."""

    def _deserialize(
        self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any
    ) -> tuple[bytes, ...]:
        text = self._text(value)
        require(len(text) <= 2 * LARGEST_BYTES, attr, f"must be at most {LARGEST_BYTES} bytes")
        try:
            return hsm.certificates_of(text)
        except ValueError:
            fail(BadRequest(f"Field '{attr}' must hold certificates in PEM"))


class X5c(NamesField):
    """Certificates as JOSE has them: base64 of DER (RFC 7515 §4.1.6)."""

    def _deserialize(  # type: ignore[override]  # as marshmallow's own: fields return anything
        self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any
    ) -> tuple[bytes, ...]:
        try:
            return tuple(b64decode(text, validate=True) for text in super()._deserialize(value))
        except ValueError:
            fail(BadRequest(f"Field '{attr}' must hold base64 (RFC 4648 §4)"))


class CsrRequest(RequestSchema):
    """POST /keys/{kid}/csr."""

    subject = Subject(required=True)
    dns = DnsNames(load_default=None, allow_none=True)
    alg = AlgorithmName(SIGNATURE, load_default=None, allow_none=True)

    @validates_schema
    def check_names(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse a request for nobody."""
        is_named = body["subject"] or body["dns"]
        require(bool(is_named), "subject", "must not be empty without 'dns'")


class CsrResponse(ResponseSchema):
    """A request for a certificate, in PEM."""

    csr = fields.String(required=True)


class CertificateRequest(RequestSchema):
    """PUT /keys/{kid}/certificate: a chain in either form, the certificate of the key first."""

    chain = PemChain(load_default=None, allow_none=True)
    x5c = X5c(load_default=None, allow_none=True)

    @validates_schema
    def check_one(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse both forms, and none; and more than a header can hold."""
        pem, x5c = body["chain"], body["x5c"]
        require_one(body, "chain", "x5c")
        name, ders = ("chain", pem) if x5c is None else ("x5c", x5c)
        is_of_size = 1 <= len(ders) <= MOST_CERTIFICATES
        require(is_of_size, name, f"must hold 1 to {MOST_CERTIFICATES} certificates")
        require(sum(map(len, ders)) <= LARGEST_BYTES, name, f"is over {LARGEST_BYTES} bytes")
