"""``jose-hsm serve`` and ``jose-hsm dev``: the service itself, in the foreground."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

import hsm
from app.config import Config
from app.errors import RegistryUnavailable
from app.operator.cli import environment_file
from app.operator.cli.command import configured
from app.operator.cli.registry import migrate, require_migrated
from app.operator.serving import COMMAND, DevelopmentToken, NoDevelopmentToken
from app.settings import PREFIX, WORKERS, ConfigError, workers
from app.terminal.failure import CommandFailed


@click.command()
@configured
def serve(config: Config) -> NoReturn:
    """Serve as the settings say.

    SIGTERM ends it when all requests are answered, SIGHUP has new workers take over.
    WEB_CONCURRENCY is how many there are; GUNICORN_CMD_ARGS is gunicorn's own.
    """
    _require_workers()
    try:
        require_migrated(config)
    except RegistryUnavailable as error:
        # The service says so to its callers until the registry answers.
        print(f"jose-hsm: {error}", file=sys.stderr)
    _serve()


@click.command()
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=Path("var"),
    show_default=True,
    help="Where token and registry are.",
)
@click.option("--port", default=8000, show_default=True, help="On 127.0.0.1.")
@click.option("--no-serve", is_flag=True, help="Make what is missing, and end.")
@click.pass_context
def dev(context: click.Context, *, state_dir: Path, port: int, no_serve: bool) -> int:
    """Serve on loopback with a token for development.

    The token is made if it is not there. Settings in the environment count more; if they name
    another token, none is made.
    """
    os.umask(0o077)
    if file := context.find_root().params["settings"]:
        os.environ.update(environment_file.read(file))
    directory = Path(os.environ.get(f"{PREFIX}STATE_DIR") or state_dir).absolute()
    given = {name: value for name, value in os.environ.items() if value}
    try:
        _require_workers()
        directory.mkdir(parents=True, exist_ok=True)
        _prepare(DevelopmentToken(state_dir=directory, given=given), port)
    except (ConfigError, NoDevelopmentToken, OSError) as error:
        raise CommandFailed(str(error)) from error
    context.invoke(migrate, new=False)
    if not no_serve:
        print(f"jose-hsm: state in {directory}; Ctrl-C ends it", file=sys.stderr)
        _serve()
    return 0


def _require_workers() -> None:
    """Have gunicorn find a number in its variable, or none; raise ``ConfigError``."""
    if workers(os.environ) is None:
        os.environ.pop(WORKERS, None)


def _prepare(token: DevelopmentToken, port: int) -> None:
    """Set what is not set, make the token, and leave the settings for commands beside the service.

    The PIN is never among those. Raises ``NoDevelopmentToken`` and ``OSError``.
    """
    settings = {f"{PREFIX}BIND": f"127.0.0.1:{port}", **token.given, **token.settings()}
    os.environ.update(settings)
    left = {
        name: value
        for name, value in sorted(settings.items())
        if (name.startswith(PREFIX) and name != f"{PREFIX}PIN") or name == "SOFTHSM2_CONF"
    }
    text = environment_file.written(left)
    hsm.replace(token.state_dir / "settings", text.encode(), synced=False)
    token.make(settings)


def _serve() -> NoReturn:
    sys.stdout.flush()
    os.execv(COMMAND[0], COMMAND)  # noqa: S606  # ours, and the same process for systemd
