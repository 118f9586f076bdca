"""What a peer and the service make for one another, and whether the other side opens it."""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, Final, NamedTuple

from joserfc import jwk

import hsm
from scripts.interoperability.peers import Peer, Task

Body = dict[str, Any]
Post = Callable[[str, Body], Body]
"""Asks the service; returns the body of its answer, also of an error."""

PAYLOAD: Final = urlsafe_b64encode("The road goes ever on…".encode()).decode().rstrip("=")


class Form(StrEnum):
    """How a message is written. JSON is flattened: one signature, one recipient.

    In the general form what names the key is unprotected, where the side that makes it does so.
    """

    COMPACT = "compact"
    JSON = "JSON"
    GENERAL = "general"


class Way(StrEnum):
    """Who makes a message for whom."""

    SIGNS = "it signs"
    VERIFIES = "it verifies"
    ENCRYPTS = "it encrypts"
    DECRYPTS = "it decrypts"


class Case(NamedTuple):
    """Algorithms that are tried, with the kind of key that they are for."""

    alg: str
    enc: str | None
    key: tuple[str, str | int]
    """Its ``kty``, and its curve or size in bits."""

    @property
    def name(self) -> str:
        """How people call it."""
        is_one_of_several = self.alg != hsm.DIRECT and len(hsm.ALGORITHMS[self.alg].curves) > 1
        on = f" on {self.key[1]}" if is_one_of_several else ""
        return f"{self.alg}{on}" if self.enc in {None, _ENC} else f"{self.alg} {self.enc}"

    @property
    def forms(self) -> list[Form]:
        """Those that it can have: a CEK that is not wrapped is that of one recipient only."""
        return [form for form in Form if form is not Form.GENERAL or self.alg not in _ALONE]


class Finding(NamedTuple):
    """Whether a message went from one to the other; ``reason`` says why not."""

    case: Case
    form: Form
    way: Way
    reason: str | None
    is_refused: bool = False
    """Whether the peer made a message that the service did not take."""


_ENC: Final = "A256GCM"
_ALONE: Final = frozenset({hsm.DIRECT, "ECDH-ES"})


def cases() -> Iterator[Case]:
    """Give all that the service offers on SoftHSM, with ``dir`` each content encryption."""
    for alg in hsm.SIGNATURES:
        yield from (Case(alg, None, key) for key in _keys(alg))
    for alg, row in hsm.KEY_MANAGEMENTS.items():
        if not row.is_opt_in:
            yield from (Case(alg, _ENC, key) for key in _keys(alg))
    for enc, content in hsm.CONTENT_ENCRYPTIONS.items():
        yield Case(hsm.DIRECT, enc, ("oct", 8 * content.key_bytes))


def _keys(alg: str) -> Iterator[tuple[str, str | int]]:
    """Give a key for each curve that ``alg`` can be on, or the one that it has."""
    for kind, curve in hsm.ALGORITHMS[alg].keys:
        if kind.ktys[0] == "AKP":
            continue  # ML-DSA is on no packaged SoftHSM
        if curve:
            yield kind.ktys[0], curve.crv
        elif kind.name == "RSA":
            yield "RSA", 2048
        else:
            yield "oct", int(alg[1:4])


class Keys:
    """A key for each case, imported, and what the service makes with it: all peers get the same."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._jwks: dict[tuple[str, str | int], Body] = {}
        self._kids: dict[tuple[tuple[str, str | int], str | None], str] = {}
        self._messages: dict[tuple[str, Form], Any] = {}

    def jwk(self, case: Case) -> Body:
        """Return the private JWK."""
        if case.key not in self._jwks:
            generate: Any = jwk.generate_key  # its types are those of each kty
            self._jwks[case.key] = generate(*case.key).as_dict(private=True)
        return {name: text for name, text in self._jwks[case.key].items() if name != "kid"}

    def kid(self, case: Case) -> str:
        """Return its name in the service."""
        alg = case.enc if case.alg == hsm.DIRECT else case.alg
        if case.key[0] == "RSA":
            alg = None  # bound to none, it does for all of them
        if (case.key, alg) not in self._kids:
            self._kids[case.key, alg] = self._post("/keys", self.jwk(case) | {"alg": alg})["kid"]
        return self._kids[case.key, alg]

    def message(self, case: Case, form: Form) -> Any:
        """Return a message of the service."""
        if (case.name, form) not in self._messages:
            self._messages[case.name, form] = self._made(case, form)
        return self._messages[case.name, form]

    def _made(self, case: Case, form: Form) -> Any:
        body = {"kid": self.kid(case), "alg": case.alg, "data": PAYLOAD}
        path, name = ("/encrypt", "jwe") if case.enc else ("/sign", "jws")
        body |= {"enc": case.enc} if case.enc else {}
        if form is Form.COMPACT:
            return self._post(path, body | {"serialization": "compact"})[name]
        if form is Form.GENERAL:
            several = "recipients" if case.enc else "signers"
            one = {member: body.pop(member) for member in ("kid", "alg")}
            return self._post(path, body | {"serialization": "general", several: [one]})
        made = {name: value for name, value in self._post(path, body).items() if value}
        # What is empty is absent (RFC 7516 §7.2.1), and a detached payload is put back.
        return made if case.enc else made | {"payload": PAYLOAD}


def trial(peer: Peer, post: Post, keys: Keys) -> list[Finding]:
    """Have ``peer`` make a message of each case and form, and open those of the service."""
    tried = [(case, form) for case in cases() for form in case.forms]
    makes = [_task(keys, case) | {"form": form.lower(), "payload": PAYLOAD} for case, form in tried]
    opens = [_task(keys, case) | {"message": keys.message(case, form)} for case, form in tried]
    outcomes = peer.perform([*makes, *opens])
    theirs, opened = outcomes[: len(tried)], outcomes[len(tried) :]
    return [
        *(_of_theirs(post, *one, made) for one, made in zip(tried, theirs, strict=True)),
        *(_of_ours(*one, outcome) for one, outcome in zip(tried, opened, strict=True)),
    ]


def _task(keys: Keys, case: Case) -> Task:
    task = {"key": keys.jwk(case), "alg": case.alg, "kid": keys.kid(case)}
    return task | ({"enc": case.enc} if case.enc else {})


def _of_ours(case: Case, form: Form, outcome: Body) -> Finding:
    way = Way.DECRYPTS if case.enc else Way.VERIFIES
    is_right = outcome.get("payload") == PAYLOAD
    return Finding(case, form, way, None if is_right else str(outcome.get("lacks", "wrong")))


def _of_theirs(post: Post, case: Case, form: Form, outcome: Body) -> Finding:
    way = Way.ENCRYPTS if case.enc else Way.SIGNS
    if "message" not in outcome:
        return Finding(case, form, way, outcome["lacks"])
    message = outcome["message"]
    path, name = ("/decrypt", "jwe") if case.enc else ("/verify", "jws")
    answer = post(path, {name: message} if form is Form.COMPACT else message)
    is_right = answer.get("data") == PAYLOAD if case.enc else answer.get("valid") is True
    return Finding(case, form, way, None if is_right else str(answer), is_refused=not is_right)
