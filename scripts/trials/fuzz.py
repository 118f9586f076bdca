"""Ask a service on a token of its own everything that its OpenAPI document permits, in each role.

python -m scripts.trials.fuzz --examples 50

Schemathesis makes the requests: the examples, the edges of each schema, random ones good and bad,
and sequences along the links of the document, which create keys, use and destroy them. No answer
may be a fault of the server or one that the document does not have.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from app.auth import api_tokens
from app.config import Config
from app.registry import Registry
from app.rights import Role
from scripts.openapi.document import document
from scripts.openapi.examples import play
from scripts.throwaway import ROOT, Server, create_kek, make_token, server

Members = dict[str, Any]

ROLES: Final[Mapping[str, tuple[Role, ...] | None]] = MappingProxyType(
    {
        "owner": (Role.CREATOR,),
        "auditor": (Role.AUDITOR,),
        "admin": (Role.ADMIN,),
        "nobody": None,
    }
)
"""Who asks, and the roles that this caller has; ``None`` comes without credentials."""

RANDOM: Final = ("examples", "coverage", "fuzzing")
LINKED: Final = ("stateful",)

Plan = Mapping[str, Sequence[Sequence[str]]]
"""Which phases of schemathesis each role goes through, each sequence in a run of its own."""

EVERYTHING: Final[Plan] = MappingProxyType(dict.fromkeys(ROLES, (RANDOM, LINKED)))

_SETTINGS: Final = {
    "JOSE_HSM_AUTH": "token",
    "JOSE_HSM_AUTH_FAILURES": "1000000",
    "JOSE_HSM_EVERYBODY_CREATES": "0",
}
_CONFIGURATION: Final = ROOT / "scripts" / "trials" / "fuzz.toml"
_COMMAND: Final = (sys.executable, "-m", "schemathesis.cli", "--config-file", _CONFIGURATION)
# Who comes without credentials gets 401, whatever he asks: not 405 for a method that is none.
_OF_NOBODY: Final = ("--exclude-checks", "unsupported_method")


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many requests a role made, and what schemathesis said of those that failed."""

    role: str
    cases: int
    failures: int
    says: str


def main() -> None:
    """Print the number of cases for each role; exit with 1 if one has failed."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="jose-hsm-") as directory:
        settings = make_token(Path(directory) / "state")
        create_kek(settings)
        counts = run(settings, EVERYTHING, examples=options.examples, seed=options.seed)
    for count in counts:
        if count.failures:
            print(count.says)
    for role in ROLES:
        own = [count for count in counts if count.role == role]
        cases, failures = sum(one.cases for one in own), sum(one.failures for one in own)
        print(f"{role:8} {cases:7} cases {failures:4} failures")
    sys.exit(any(count.failures for count in counts))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--examples", type=int, default=50, help="cases of each operation")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def run(
    settings: Mapping[str, str],
    plan: Plan,
    *,
    examples: int,
    seed: int,
    serve: Callable[..., AbstractContextManager[Server]] = server,
) -> list[Count]:
    """Serve a token that has a key-encryption key, and ask it.

    ``examples`` are cases of each operation. What is asked stays beside the token's state.
    """
    settings, directory = {**settings, **_SETTINGS}, Path(settings["JOSE_HSM_STATE_DIR"]).parent
    bearers = {name: _token(settings, name) for name in ROLES}
    with serve(settings, workers=2) as running:
        # Played, so that examples name keys that there are.
        whole = _strict(document(play(running.url, bearer=bearers["owner"])))
        paths = {}
        for name, one in (("whole", whole), ("generating", _generating(whole))):
            paths[name] = directory / f"{name}.json"
            paths[name].write_text(json.dumps(one), "utf-8")
        limits = ("--max-examples", str(examples), "--seed", str(seed))
        return [
            _ask(
                role,
                bearers[role],
                paths["generating" if phases == LINKED else "whole"],
                ("--url", running.url, "--phases", ",".join(phases), *limits),
            )
            for role in plan
            for phases in plan[role]
        ]


def _token(settings: Mapping[str, str], name: str) -> str | None:
    """Return an API token for ``name``, with its roles."""
    roles = ROLES[name]
    if roles is None:
        return None
    token, row = api_tokens.make(f"token:{name}", roles=roles, name="fuzz", expires_at=None)
    Registry(Config.from_env(settings).registry_url, host="fuzz").credentials.add(row)
    return token


def _ask(role: str, bearer: str | None, path: Path, arguments: Sequence[str]) -> Count:
    """Run schemathesis on the document at ``path``."""
    report = path.with_name("report.json")
    more = () if bearer else _OF_NOBODY
    done = subprocess.run(
        [*_COMMAND, "run", path, *arguments, *more, "--report-json-path", report],
        cwd=path.parent,  # it keeps notes
        env={**os.environ, "AUTHORIZATION": f"Bearer {bearer}" if bearer else ""},
        check=False,
        capture_output=True,
        text=True,
    )
    told = json.loads(report.read_text("utf-8"))
    failures = len(told["failures"]) + len(told["errors"])
    if (done.returncode == 0) is not (failures == 0):  # it was not run at all
        raise RuntimeError(done.stdout + done.stderr)
    return Count(
        role=role, cases=told["test_cases"]["generated"], failures=failures, says=done.stdout
    )


def _strict(document: Members) -> Members:
    """Return ``document`` without what the answers do not have, and without long generations.

    An RSA pair of 4096 bits takes seconds of a processor, and finds nothing that one of 2048
    does not, nor do a hundred pairs that two do not.
    """
    document = json.loads(json.dumps(document))
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        if name.endswith("Response"):
            schema["additionalProperties"] = False
    properties = schemas["CreateKeyRequest"]["properties"]
    properties["bits"]["enum"] = [2048, None]
    properties["count"]["maximum"] = 2
    return document


def _generating(document: Members) -> Members:
    """Return ``document`` where keys are generated, each with its ``alg``.

    Random material makes no key, and one without ``alg`` leaves links nothing to go on with.
    """
    document = json.loads(json.dumps(document))
    creation = document["components"]["schemas"]["CreateKeyRequest"]
    names = ("kty", "alg", "crv", "bits")
    creation["properties"] = {name: creation["properties"][name] for name in names}
    for kind in creation["oneOf"]:
        del kind["anyOf"]  # of members that are material
        alg = kind["properties"]["alg"]
        alg["enum"] = [name for name in alg["enum"] if name]
        kind["required"] = sorted({*kind["required"], "alg"})
    creation["additionalProperties"] = False
    return document


if __name__ == "__main__":
    main()
