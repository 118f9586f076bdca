"""``jose-hsm backup`` and ``jose-hsm restore``: the registry in a file, and back."""

import argparse
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from app.audit import ChangesSince, since
from app.config import Config
from app.operator import backup, restoration
from app.operator.cli.service import opened, record


def add_to(commands: Any) -> None:
    """Add the commands."""
    command = commands.add_parser(
        "backup", help="write the registry to a file, while the service serves"
    )
    command.add_argument("file", type=Path)
    command.add_argument("--force", action="store_true", help="replace the file if there is one")
    command.set_defaults(command=_backup)

    command = commands.add_parser(
        "restore",
        help="put a backup in the place of the registry; the service must not run",
        description="Prints first how the backup differs from the token. Nothing on the token is "
        "changed. Exit status of --dry-run: 1 if they differ.",
    )
    command.add_argument("file", type=Path)
    command.add_argument("--dry-run", action="store_true", help="compare only; change nothing")
    command.add_argument("--force", action="store_true", help="replace a registry with rows")
    command.add_argument(
        "--without-token", action="store_true", help="do not compare with the token"
    )
    command.add_argument(
        "--audit",
        action="append",
        type=Path,
        metavar="FILE",
        help="an audit log since the backup, of each host; by default the one of this host",
    )
    command.add_argument(
        "--encryptions",
        type=_count,
        metavar="N",
        help="the most AES-GCM encryptions that any key has done since the backup; by default "
        f"{restoration.FASTEST_A_SECOND:,} for each second",
    )
    command.set_defaults(command=_restore)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError("must be a whole number")
    return int(text)


def _backup(config: Config, options: argparse.Namespace) -> int:
    contents = backup.write(options.file, config.registry_url, force=options.force)
    record(config, "backup", file=str(options.file.absolute()), sha256=contents.sha256)
    _describe(contents)
    return 0


def _restore(config: Config, options: argparse.Namespace) -> int:
    url = config.registry_url
    with nullcontext() if options.dry_run else restoration.alone(config.state_dir, url):
        contents = backup.read(options.file)
        history = since(options.audit or filter(None, [config.audit_path]), contents.taken_at)
        plan = restoration.plan(options.file, url, history, encryptions=options.encryptions)
        _describe(contents)
        _list("left out, for they were being made", plan.left_out)
        _list("left out, for they have been destroyed since", plan.destroyed)
        print(f"counted for each AES-GCM key since the backup: {plan.encryptions:,} encryptions")
        _tell(history)
        is_different = not options.without_token and _compare(config, plan)
        if options.dry_run:
            return int(is_different)
        restoration.restore(plan, url, force=options.force)
        record(
            config,
            "restore",
            file=str(options.file.absolute()),
            sha256=contents.sha256,
            left_out=sorted(plan.left_out | plan.destroyed),
        )
    print("restored")
    return 0


def _compare(config: Config, plan: restoration.Plan) -> bool:
    """Print how the backup differs from the token, and return whether it does."""
    missing, unknown = opened(config).differences(plan.specs())
    _list("in the backup and not on the token", map(str, missing))
    _list("on the token and not in the backup (left alone)", map(str, unknown))
    return bool(missing or unknown)


def _describe(contents: backup.Contents) -> None:
    counts = ", ".join(f"{table} {number}" for table, number in sorted(contents.rows.items()))
    print(f"registry of {contents.taken_at.isoformat(timespec='seconds')}: {counts or 'no rows'}")
    print(f"schema {contents.revision}, sha256 {contents.sha256}")


def _tell(history: ChangesSince) -> None:
    _list("changed since, by the audit log; to be done again", history.changes)
    if not history.is_whole:
        print(
            "jose-hsm: the audit log does not reach back to the backup. What was destroyed, "
            "revoked or changed before it begins is as it was: look it through, or name older "
            "files with --audit.",
            file=sys.stderr,
        )


def _list(title: str, items: Iterable[str]) -> None:
    listed = sorted(items)
    print(f"{title}: {len(listed)}")
    for item in listed:
        print(f"  {item}")
