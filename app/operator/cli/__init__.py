"""``jose-hsm``: what an operator does beside the service."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from app import audit
from app.config import PREFIX, Config, ConfigError
from app.errors import AppError
from app.operator.backup import BackupError
from app.operator.cli import backup, doctor, keys, tokens
from app.operator.cli.service import keyring_of, record
from app.registry import migrate
from hsm import HsmError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    options = _parser().parse_args(arguments)
    _take_settings_of_run()
    try:
        return int(options.command(Config.from_env(), options))
    except (BackupError, ConfigError, AppError, HsmError) as error:
        print(f"jose-hsm: {error}", file=sys.stderr)
        return 2


def _take_settings_of_run() -> None:
    """Set what is not set as ``make run`` has left it in its ``STATE_DIR``."""
    settings = Path(os.environ.get(f"{PREFIX}STATE_DIR", "var")) / "settings"
    if settings.is_file():
        for line in settings.read_text("utf-8").splitlines():
            name, _, value = line.partition("=")
            os.environ.setdefault(name, value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jose-hsm", description="Settings are read from the environment, as the service does."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    command = commands.add_parser("migrate", help="create or update the schema of the registry")
    command.set_defaults(command=_migrate)
    command = commands.add_parser(
        "reconcile", help="finish or undo what killed processes left; tell what else differs"
    )
    command.add_argument("--dry-run", action="store_true", help="change nothing")
    command.set_defaults(command=_reconcile)
    group = commands.add_parser("audit", help="look after the audit log")
    command = group.add_subparsers(required=True, metavar="command").add_parser(
        "verify", help="tell whether the lines are those that were written, all and in order"
    )
    command.add_argument("--head", help="the hash of a line that must be there")
    command.add_argument("files", nargs="*", type=Path, help="the oldest first; default: the log")
    command.set_defaults(command=_verify_audit)
    tokens.add_to(commands)
    keys.add_to(commands)
    doctor.add_to(commands)
    backup.add_to(commands)
    return parser


def _migrate(config: Config, _: argparse.Namespace) -> int:
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    migrate(config.registry_url)
    return 0


def _reconcile(config: Config, options: argparse.Namespace) -> int:
    found = keyring_of(config).reconcile(
        dry_run=options.dry_run,
        record=lambda kid: record(config, "reconcile", destroyed=str(kid)),
    )
    verb = "would settle" if options.dry_run else "settled"
    for title, kids in (
        (verb, found.settled),
        ("in the registry and not on the token", found.missing),
        ("on the token and not in the registry (left alone)", found.unknown),
    ):
        print(f"{title}: {len(kids)}")
        for kid in kids:
            print(f"  {kid}")
    return 1 if found.missing or found.unknown else 0


def _verify_audit(config: Config, options: argparse.Namespace) -> int:
    files = options.files or [path for path in [config.audit_path] if path]
    try:
        report = audit.verify(files, options.head)
    except OSError as error:
        print(f"jose-hsm: {error}", file=sys.stderr)
        return 2
    print(f"lines: {report.lines}, of them torn: {report.torn}")
    print(f"from {report.first} to {report.last}")
    print(f"head: {report.head}")
    if report.broken:
        print(f"broken: {report.broken}")
    if options.head and not report.is_head_met:
        print(f"broken: no line has the hash {options.head}")
        return 1
    return 1 if report.broken else 0
