"""Many keys on one token, made by the service's own code in the time that we have.

SoftHSM takes the longer for a key the more it has: 10,000 in one token take a quarter of an hour.
So copies of the new token are filled by a process each, and their objects put together: the copies
share the token's own key, and a key is a file.

    python -m scripts.bench.keys 1000      # JOSE_HSM_* name the copy, and the one registry
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from app.auth import ANONYMOUS
from app.config import Config
from app.host import host_name
from app.registry import Key, Origin, Registry, Residency
from hsm import Hsm, KeySpec, TokenUnavailable
from scripts.throwaway import ROOT

_SPEC: Final = KeySpec(kty="oct", alg="A256GCM", bits=256)
_KEYS_OF_A_COPY: Final = 1250
_READY_SECONDS: Final = 60


def registry_of(settings: Mapping[str, str]) -> Registry:
    """Return the registry that ``settings`` name."""
    config = Config.from_env(settings)
    return Registry(config.registry_url, host=host_name(config.state_dir))


def fill(settings: Mapping[str, str], keys: int) -> list[UUID]:
    """Make so many keys for ``dir`` in a token that nobody has open; return their kids."""
    home = Path(settings["JOSE_HSM_STATE_DIR"])
    batches = [min(_KEYS_OF_A_COPY, keys - made) for made in range(0, keys, _KEYS_OF_A_COPY)]
    copies = [home.with_name(f"{home.name}-{number}") for number in range(len(batches))]
    for copy in copies:
        shutil.copytree(home, copy)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as turns:
        list(turns.map(_fill_copy, copies, [settings] * len(copies), batches))
    for copy in copies:
        _merge(copy, home)
        shutil.rmtree(copy)
    return list(registry_of(settings).specs())


def _fill_copy(copy: Path, settings: Mapping[str, str], keys: int) -> None:
    conf = copy / "softhsm.conf"
    conf.write_text(conf.read_text().replace(settings["JOSE_HSM_STATE_DIR"], str(copy)))
    environment = {
        **os.environ,
        **settings,
        "SOFTHSM2_CONF": str(conf),
        "JOSE_HSM_STATE_DIR": str(copy),
        "JOSE_HSM_DATABASE_URL": Config.from_env(settings).registry_url,
    }
    command = [sys.executable, "-m", "scripts.bench.keys", str(keys)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def _merge(copy: Path, home: Path) -> None:
    (source,), (target,) = ((place / "tokens").iterdir() for place in (copy, home))
    for found in source.iterdir():
        if not (target / found.name).exists():
            found.rename(target / found.name)


def _generate(keys: int) -> None:
    """Make keys as the service does, but for the first of the two phases."""
    config = Config.from_env()
    registry, token = registry_of(os.environ), Hsm(config.hsm_settings)
    token.start()
    _wait_for(token)
    for _ in range(keys):
        key = Key(
            kid=uuid4(),
            kid_public=None,
            owner=ANONYMOUS,
            spec=_SPEC,
            origin=Origin.GENERATED,
            residency=Residency.TOKEN,
        )
        token.generate(key.ref)
        registry.insert(key)
        registry.activate_all({key.ref: None})


def _wait_for(token: Hsm) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        try:
            token.offers()
        except TokenUnavailable:
            time.sleep(0.1)
        else:
            return
    raise TokenUnavailable("no token to make keys in")


if __name__ == "__main__":
    _generate(int(sys.argv[1]))
