"""Bodies that have keys made, by the algorithms that they are for."""

from typing import Any

import hsm

# ``RSA1_5`` is switched off unless the settings say otherwise (tests/http/test_rsa1_5.py).
TRANSPORTS = tuple(name for name, row in hsm.KEY_MANAGEMENTS.items() if not row.is_opt_in)
ML_DSA = tuple(name for name, row in hsm.ALGORITHMS.items() if row.kind.name == "ML-DSA")
"""What no packaged SoftHSM has."""

RSA_TRANSPORTS = tuple(name for name in TRANSPORTS if hsm.KEY_MANAGEMENTS[name].kind.name == "RSA")


def no_arrays_of(one: object) -> dict[str, Any]:
    """What is no array of 1 to 20 objects like ``one``, by what is wrong with it."""
    return {
        "no array": {},
        "text": "x",
        "empty": [],
        "no objects": ["x"],
        "too many": [one] * 21,
    }


def crvs_of(name: str) -> tuple[str, ...]:
    """The curves that keys of an algorithm can be on."""
    return tuple(curve.crv for curve in hsm.ALGORITHMS[name].curves)


def free_body_of(name: str) -> dict[str, str]:
    """What generates one: of RSA one that is bound to none of them, as each of its pairs costs."""
    body = body_of(name)
    return {"kty": "RSA"} if body["kty"] == "RSA" else body


def body_of(name: str, crv: str | None = None) -> dict[str, str]:
    """What generates a key for an algorithm, on ``crv`` or on the first of its curves."""
    row = hsm.ALGORITHMS[name]
    kind, curve = next(
        (kind, curve) for kind, curve in row.keys if crv is None or (curve and curve.crv == crv)
    )
    members = {"kty": kind.ktys[0], "alg": name}
    return members | {"crv": curve.crv} if curve else members
