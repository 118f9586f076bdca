"""``jose-hsm`` at a service, in this process: what is typed, piped in and printed."""

import io
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from app.operator.cli import main
from tests.shared.api import NOT_AVAILABLE, NotOffered
from tests.shared.waiting import until

OPENING = "the token is being opened"


@dataclass(frozen=True)
class Typed:
    """What a command has printed, and its status."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """What is printed, without the end of its line."""
        return self.out.decode().removesuffix("\n")


class Pipe(io.BytesIO):
    """Standard input, which has a name."""

    name = "<stdin>"


@dataclass(frozen=True)
class CommandLine:
    """The command line of somebody who has set ``environment``."""

    environment: Mapping[str, str]

    def type(self, *arguments: str | Path, piped: bytes = b"") -> Typed:
        """Run a command, again while a service that has just begun opens its token."""
        return until(lambda: _unless_opening(self._once(arguments, piped)))

    def _once(self, arguments: tuple[str | Path, ...], piped: bytes) -> Typed:
        with CliRunner().isolation(Pipe(piped), env=self.environment) as (out, err, _both):
            status = main([str(argument) for argument in arguments])
            sys.stdout.flush()
            sys.stderr.flush()
            return Typed(status=status, out=out.getvalue(), err=err.getvalue().decode())

    def do(self, *arguments: str | Path, piped: bytes = b"") -> Typed:
        """Run a command, which must succeed.

        Raises ``NotOffered`` where the token does not offer what it asks for.
        """
        typed = self.type(*arguments, piped=piped)
        if lacking := NOT_AVAILABLE.search(typed.err):
            raise NotOffered(lacking[1], (), typed)
        assert (typed.status, typed.err) == (0, ""), typed
        return typed

    def text(self, *arguments: str | Path, piped: bytes = b"") -> str:
        """Return the text that a command prints."""
        return self.do(*arguments, piped=piped).text

    def json(self, *arguments: str | Path, piped: bytes = b"") -> Any:
        """Return the JSON that a command prints."""
        return json.loads(self.do(*arguments, "--json", piped=piped).out)


def _unless_opening(typed: Typed) -> Typed | None:
    return None if OPENING in typed.err else typed
