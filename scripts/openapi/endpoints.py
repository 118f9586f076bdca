"""What each endpoint takes, answers and refuses: one row for each method of each rule."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from flask import Flask
from marshmallow import Schema

import hsm
from app import factory
from app.auth.authenticator import OPEN
from app.schemas.catalogue import ListQuery
from scripts.openapi import failures
from scripts.openapi.failures import Failures
from scripts.openapi.types import JsonSchema, one_of

JSON: Final = "application/json"
PEM: Final = "application/x-pem-file"
JWK_SET: Final = "application/jwk-set+json"
PROMETHEUS: Final = ("text/plain", "application/openmetrics-text")

_TEXT: Final[Mapping[str, str]] = MappingProxyType({"type": "string"})
_CREATES: Final = ("Idempotency-Key",)
_CACHED: Final = ("ETag", "Cache-Control")
_OF_KEY: Final[Mapping[str, str]] = MappingProxyType({"kid": "$response.body#/kid"})
_JWE: Final = ("protected", "encrypted_key", "iv", "ciphertext", "tag")


class Link(NamedTuple):
    """What can be asked next, with which parameters and members of its body."""

    operation: str
    parameters: Mapping[str, str] = MappingProxyType({})
    body: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A success: schemas, of which one holds, by media type; and what is particular to it."""

    status: int = 200
    says: str = "Success"
    schemas: tuple[str, ...] = ()
    media_types: tuple[str, ...] = (JSON,)
    headers: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()

    @property
    def schema(self) -> JsonSchema:
        """The body, which is text where no schema is named."""
        return one_of(self.schemas) if self.schemas else dict(_TEXT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """``body`` and ``query`` are what goes in, ``answers`` what comes out, ``failures`` else."""

    answers: tuple[Answer, ...]
    body: tuple[str, ...] = ()
    query: type[Schema] | None = None
    headers: tuple[str, ...] = ()
    failures: Failures = ()
    more: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A row, and what the url map and the view say of it."""

    name: str
    method: str
    path: str
    parameters: tuple[str, ...]
    tag: str
    summary: str
    is_open: bool
    row: Row = field(repr=False)

    @property
    def failures(self) -> Failures:
        """All that can go wrong."""
        callers = () if self.is_open else failures.CALLER
        return (*failures.EVERYWHERE, *callers, *self.row.failures)


def _message(body: tuple[str, ...], *answers: Answer, more: str, refused: Failures = ()) -> Row:
    """Return the row of an operation on a message."""
    return Row(
        body=body,
        answers=answers,
        failures=(
            *failures.BODY,
            *failures.KEY,
            *failures.ALGORITHM,
            *failures.TOKEN,
            *refused,
            *failures.AUDIT,
        ),
        more=more,
    )


def _change(body: tuple[str, ...], answer: Answer, *, refused: Failures = (), more: str) -> Row:
    """Return the row of a change of what the registry knows of a key."""
    return Row(
        body=body,
        answers=(answer,),
        failures=(*(failures.BODY if body else ()), *failures.KEY, *refused, *failures.AUDIT),
        more=more,
    )


_NEW_KEY: Final = (
    Link("keys_read", _OF_KEY),
    Link("keys_change", _OF_KEY),
    Link("keys_public_pem", _OF_KEY),
    Link("keys_tags", _OF_KEY),
    Link("keys_change_tags_post", _OF_KEY),
    Link("keys_change_tags_delete", _OF_KEY),
    Link("grants_grants", _OF_KEY),
    Link("grants_grant", _OF_KEY),
    *(
        Link(operation, body={**_OF_KEY, "alg": "$response.body#/alg"})
        for operation in ("signing_sign", "signing_mac")
    ),
    Link("encryption_encrypt", body={**_OF_KEY, "alg": hsm.DIRECT, "enc": "$response.body#/alg"}),
    Link("keys_destroy", _OF_KEY),
)

ROWS: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "keys_create": Row(
            body=("CreateKeyRequest",),
            headers=_CREATES,
            answers=(Answer(says="The new key", schemas=("KeyResponse",), links=_NEW_KEY),),
            failures=(
                *failures.BODY,
                *failures.CREATOR,
                *failures.ALGORITHM,
                *failures.TOKEN,
                *failures.ONCE,
                *failures.AUDIT,
            ),
            more="A body with `k` or `d` imports that key, any other has the token generate one. "
            "A key made with an `alg` does that and nothing else. RSA pairs are generated, and "
            "checked to be imported, in a lane of their own: 503 while it is full.",
        ),
        "keys_unwrap": Row(
            body=("UnwrapRequest",),
            headers=_CREATES,
            answers=(
                Answer(
                    says="The new key, an `oct` key of the `enc` of the header",
                    schemas=("KeyResponse",),
                    links=(Link("keys_read", _OF_KEY), Link("keys_destroy", _OF_KEY)),
                ),
            ),
            failures=(
                *failures.BODY,
                *failures.KEY,
                *failures.ALGORITHM,
                *failures.TOKEN,
                *failures.DECRYPTION,
                *failures.ONCE,
                *failures.AUDIT,
            ),
            more="The caller needs the right `unwrap` on the key that the header names, and must "
            "be allowed to make keys.",
        ),
        "keys_page": Row(
            query=ListQuery,
            answers=(
                Answer(
                    says="A page of keys, in the order of their kids",
                    schemas=("ListResponse",),
                    links=(Link("keys_read", {"kid": "$response.body#/keys/0/kid"}),),
                ),
            ),
            failures=failures.QUERY,
            more="Every filter that is given must hold. Auditors and administrators see all keys, "
            "others their own and those on which they have the right `read`.",
        ),
        "keys_read": Row(
            answers=(Answer(says="The key", schemas=("DescriptionResponse",)),),
            failures=failures.KEY,
        ),
        "keys_public_pem": Row(
            answers=(Answer(says="SubjectPublicKeyInfo in PEM", media_types=(PEM,)),),
            failures=(*failures.KEY, *failures.PUBLIC_HALF),
        ),
        "keys_change": _change(
            ("ChangeRequest",),
            Answer(says="The key as it is now", schemas=("DescriptionResponse",)),
            refused=failures.STATE,
            more="What is absent stays. A deactivated or compromised key still decrypts and "
            "verifies; nothing leads back from `compromised`.",
        ),
        "keys_destroy": Row(
            answers=(Answer(status=204, says="It is gone"),),
            failures=(*failures.KEY, *failures.TOKEN, *failures.AUDIT),
            more="Whichever half `kid` names. From then on both kids are 404.",
        ),
        "keys_tags": Row(
            answers=(Answer(says="All tags of the key", schemas=("TagsResponse",)),),
            failures=failures.KEY,
        ),
        "keys_change_tags_post": _change(
            ("TagsRequest",),
            Answer(says="All tags of the key now", schemas=("TagsResponse",)),
            more="POST adds those of the body. The tag `jwks` publishes a generated pair.",
        ),
        "keys_change_tags_delete": _change(
            ("TagsRequest",),
            Answer(says="All tags of the key now", schemas=("TagsResponse",)),
            more="DELETE removes those of the body, whether the key has them or not.",
        ),
        "grants_grants": Row(
            answers=(Answer(says="All grants of the key", schemas=("GrantsResponse",)),),
            failures=failures.KEY,
        ),
        "grants_grant": _change(
            ("GrantRequest",),
            Answer(
                says="What the principal may do now",
                schemas=("GrantResponse",),
                links=(
                    Link(
                        "grants_revoke",
                        {"kid": "$request.path.kid", "grantee": "$request.path.grantee"},
                    ),
                ),
            ),
            refused=failures.PATH,
            more="It replaces what was granted to that principal before, and counts at once.",
        ),
        "grants_revoke": _change(
            (),
            Answer(status=204, says="It may do nothing any more"),
            refused=failures.PATH,
            more="",
        ),
        "encryption_encrypt": _message(
            ("EncryptRequest",),
            Answer(
                says="A JWE, flattened or compact",
                schemas=("EncryptResponse", "CompactEncryptResponse"),
                links=(
                    *(
                        Link(operation, body={name: f"$response.body#/{name}" for name in parts})
                        for operation, parts in (
                            ("encryption_decrypt", _JWE),
                            ("keys_unwrap", _JWE[:2]),
                        )
                    ),
                ),
            ),
            more="`kid` names the AES key with `dir` and `A…KW`, else the recipient's pair by "
            "either kid. The header names the key that decrypts.",
        ),
        "encryption_decrypt": _message(
            ("DecryptRequest", "CompactDecryptRequest"),
            Answer(says="The plaintext", schemas=("DecryptResponse",)),
            refused=failures.DECRYPTION,
            more="A flattened JWE (RFC 7516 §7.2.2) or a compact one, never both.",
        ),
        "signing_sign": _message(
            ("SignRequest",),
            Answer(
                says="A detached JWS, or a compact one",
                schemas=("SignResponse", "CompactSignResponse"),
                links=(
                    Link(
                        "signing_verify",
                        body={
                            "protected": "$response.body#/protected",
                            "signature": "$response.body#/signature",
                            "data": "$request.body#/data",
                        },
                    ),
                ),
            ),
            more="The header names the key that verifies: the public half of a generated pair.",
        ),
        "signing_verify": _message(
            ("VerifyRequest", "FlattenedVerifyRequest", "CompactVerifyRequest"),
            Answer(says="Whether it is valid", schemas=("ValidResponse",)),
            more="A detached JWS and its data, a flattened one (RFC 7515 §7.2.2) or a compact one; "
            "never members of two. A header without `kid` needs `kid` or `jwk` beside the message; "
            "with `jwk` the token is not asked. A signature that does not fit is an answer, not an "
            "error.",
        ),
        "signing_mac": _message(
            ("MacRequest",),
            Answer(
                says="The MAC, or with `mac` in the request whether that is it",
                schemas=("MacResponse", "ValidResponse"),
                links=(
                    Link(
                        "signing_mac",
                        body={name: f"$request.body#/{name}" for name in ("kid", "alg", "data")}
                        | {"mac": "$response.body#/mac"},
                    ),
                ),
            ),
            more="Without `mac` it computes, with `mac` it compares.",
        ),
        "batch_answer": Row(
            body=("BatchRequest",),
            answers=(
                Answer(says="An answer to each request, in order", schemas=("BatchResponse",)),
            ),
            failures=failures.BODY,
            more="Each is answered in its place by the status and body that it would get alone. A "
            "malformed envelope is 400 for all, before anything is done; a malformed `body` is 400 "
            "for that request alone.",
        ),
        "capabilities_show": Row(
            answers=(Answer(says="What is offered", schemas=("Capabilities",)),),
            failures=failures.AWAY,
        ),
        "jwks_jwks": Row(
            headers=("If-None-Match",),
            answers=(
                Answer(
                    says="A JWK Set (RFC 7517 §5)",
                    schemas=("JwkSet",),
                    media_types=(JWK_SET,),
                    headers=_CACHED,
                ),
                Answer(status=304, says="It is still the one of `If-None-Match`", headers=_CACHED),
            ),
            failures=failures.REGISTRY,
        ),
        "health_live": Row(answers=(Answer(says="It does", schemas=("Live",)),)),
        "health_ready": Row(
            answers=(Answer(says="They can", schemas=("Ready",)),), failures=failures.READINESS
        ),
        "health_metrics": Row(
            answers=(Answer(says="The figures", media_types=PROMETHEUS),),
        ),
        "openapi_document": Row(
            headers=("If-None-Match",),
            answers=(
                Answer(says="An OpenAPI document", schemas=("OpenApi",), headers=_CACHED),
                Answer(status=304, says="It is still the one of `If-None-Match`", headers=_CACHED),
            ),
        ),
    }
)


@cache
def operations() -> Mapping[str, Operation]:
    """Return every operation of the url map, by name; raise ``KeyError`` for one without a row."""
    flask = Flask(__name__, static_folder=None)
    factory.route(flask)
    found = (
        _operation(flask, rule, method, is_only=len(methods) == 1)
        for rule in flask.url_map.iter_rules()
        for methods in [sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}, reverse=True)]
        for method in methods
    )
    by_name = {operation.name: operation for operation in found}
    return MappingProxyType({name: by_name[name] for name in [*ROWS, *by_name]})


def _operation(flask: Flask, rule: Any, method: str, *, is_only: bool) -> Operation:
    blueprint, _, view = rule.endpoint.partition(".")
    name = f"{blueprint}_{view}" + ("" if is_only else f"_{method.lower()}")
    doc = str(flask.view_functions[rule.endpoint].__doc__)
    return Operation(
        name=name,
        method=method,
        path=re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule),
        parameters=tuple(re.findall(r"<(?:\w+:)?(\w+)>", rule.rule)),
        tag=blueprint,
        summary=doc.partition("\n")[0].rstrip("."),
        is_open=blueprint in OPEN,
        row=ROWS[name],
    )
