"""The service as it was at another commit, beside the one of today."""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, NamedTuple

from scripts.throwaway import CONFIGURATION, ROOT, Process

_OLDER_CONFIGURATION: Final = "deploy/gunicorn.conf.py"
_MIGRATE: Final = """
import os
from app.config import Config
from app.registry import migrate
migrate(Config.from_env(os.environ).registry_url)
"""


class Previous(NamedTuple):
    """A folder with another version, and with its packages in ``.venv``."""

    folder: Path

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], log: IO[bytes] | None
    ) -> Process:
        """Start its gunicorn, with the configuration that it has in place of ours."""
        own = [self._configuration if one == CONFIGURATION else one for one in arguments]
        return subprocess.Popen(
            [self._python, "-m", "gunicorn", *own],
            cwd=self.folder,
            env=environment,
            stdout=log or subprocess.DEVNULL,
            stderr=log,
        )

    def migrate(self, settings: Mapping[str, str]) -> None:
        """Make the registry as it wants it."""
        subprocess.run(
            [self._python, "-c", _MIGRATE],
            cwd=self.folder,
            env={**os.environ, **settings},
            check=True,
        )

    @property
    def _configuration(self) -> str:
        here = self.folder / Path(CONFIGURATION).relative_to(ROOT)
        return str(here) if here.exists() else str(self.folder / _OLDER_CONFIGURATION)

    @property
    def _python(self) -> Path:
        return self.folder / ".venv" / "bin" / "python"


@contextmanager
def built(ref: str) -> Iterator[Previous]:
    """Build what git knows as ``ref`` for one ``with`` block, with the packages of its lock."""
    with tempfile.TemporaryDirectory(prefix="jose-hsm-") as directory:
        tree = Path(directory, "tree.tar")
        for command in (
            ["git", "archive", "--output", str(tree), ref],
            ["tar", "-x", "-f", str(tree), "-C", directory],
            [f"{directory}/scripts/setup", "requirements.lock"],
        ):
            subprocess.run(command, cwd=ROOT, check=True)
        yield Previous(Path(directory))
