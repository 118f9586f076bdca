"""``jose-hsm backup`` and ``jose-hsm restore``: the registry in a file, and back."""

import sys
from contextlib import nullcontext
from pathlib import Path

import click

from app.audit import ChangesSince, since
from app.config import Config
from app.keys.owning import claim
from app.operator import restoration
from app.operator.backup import Contents, read, write
from app.operator.cli.command import configured
from app.operator.cli.service import changing, opened, record, registry_of, require_audit_log
from app.operator.errors import BackupError
from app.terminal.output import print_list
from hsm import Hsm, file_lock


@click.command()
@click.argument("file", type=Path)
@click.option("--force", is_flag=True, help="Replace the file if there is one.")
@click.option(
    "--without-token",
    is_flag=True,
    help="Do not authenticate it: restore takes it with --unauthenticated only.",
)
@changing
def backup(config: Config, *, file: Path, force: bool, without_token: bool) -> int:
    """Write the registry to a file, while the service serves.

    The file is authenticated under a key of the token.
    """
    with file_lock(config.state_dir / "backup.lock"):  # one makes the key
        mac = None if without_token else opened(config).own_mac
        contents = write(file, config.registry_url, mac=mac, force=force)
    record(config, "backup", file=str(file.absolute()), sha256=contents.sha256)
    _describe(contents)
    return 0


@click.command()
@click.argument("file", type=Path)
@click.option("--dry-run", is_flag=True, help="Compare only; change nothing.")
@click.option("--force", is_flag=True, help="Replace a registry with rows.")
@click.option(
    "--without-token",
    is_flag=True,
    help="Do not compare with the token; needs --unauthenticated.",
)
@click.option(
    "--unauthenticated",
    is_flag=True,
    help="Take a backup that the token does not vouch for: an old one, or one of another token.",
)
@click.option(
    "--audit",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="An audit log since the backup, of each host; by default the one of this host.",
)
@click.option(
    "--encryptions",
    type=click.IntRange(min=0),
    metavar="N",
    help="The most AES-GCM encryptions that any key has done since the backup; by default "
    f"{restoration.FASTEST_A_SECOND:,} for each second.",
)
@configured
def restore(
    config: Config,
    *,
    file: Path,
    dry_run: bool,
    force: bool,
    without_token: bool,
    unauthenticated: bool,
    audit: tuple[Path, ...],
    encryptions: int | None,
) -> int:
    """Put a backup in the place of the registry.

    The service must not run. Prints first how the backup differs from the token. No key on the
    token is changed; the token belongs to this registry from then on. Exit status of --dry-run: 1
    if they differ.
    """
    from app.http.router import CHANGES  # noqa: PLC0415  # a second that backup need not wait

    url = config.registry_url
    with nullcontext() if dry_run else restoration.alone(config.state_dir, url):
        contents = read(file)
        token = None if without_token else opened(config)
        _require_authentic(file, contents, token, is_demanded=not unauthenticated)
        history = since(audit or filter(None, [config.audit_path]), contents.taken_at, CHANGES)
        plan = restoration.plan(file, url, history, encryptions=encryptions, token=token)
        _describe(contents)
        print_list("left out, for they were being made", sorted(plan.left_out))
        print_list("left out, for they have been destroyed since", sorted(plan.destroyed))
        print(f"counted for each AES-GCM key since the backup: {plan.encryptions:,} encryptions")
        differences = plan.differences()
        print_list("taken away again, by the audit log", differences.taken)
        print_list("changed since, by the audit log; to be done again", differences.to_do)
        print_list("changed since in what the audit log does not say", sorted(history.others))
        _warn_of(history)
        is_different = token is not None and _compare(token, plan)
        if dry_run:
            return int(is_different)
        require_audit_log(config)
        restoration.restore(plan, url, force=force)
        try:
            if token:
                claim(token, registry_of(config).identity())
        finally:
            record(
                config,
                "restore",
                file=str(file.absolute()),
                sha256=contents.sha256,
                left_out=sorted(plan.left_out | plan.destroyed),
                taken_away=differences.taken,
            )
    print("restored")
    if token is None:
        print("jose-hsm: run `jose-hsm claim` once the token is there.", file=sys.stderr)
    return 0


def _require_authentic(
    file: Path, contents: Contents, token: Hsm | None, *, is_demanded: bool
) -> None:
    """Raise ``BackupError``, or warn, if the token does not say that the backup was written so."""
    if contents.mac and token and token.is_own_mac(contents.digest, contents.mac):
        return
    doubt = f"{file} is not authenticated by this token: whoever can write it may have changed it"
    if is_demanded:
        raise BackupError(f"{doubt}. If you know where it was, add --unauthenticated")
    print(f"jose-hsm: {doubt}.", file=sys.stderr)


def _compare(token: Hsm, plan: restoration.Plan) -> bool:
    """Print how the backup differs from the token, and return whether it does."""
    missing, unknown = token.differences(plan.specs())
    unknown.difference_update(plan.kids())
    print_list("in the backup and not on the token", sorted(map(str, missing)))
    print_list("on the token and not in the backup (left alone)", sorted(map(str, unknown)))
    return bool(missing or unknown)


def _describe(contents: Contents) -> None:
    counts = ", ".join(f"{table} {number}" for table, number in sorted(contents.rows.items()))
    print(f"registry of {contents.taken_at.isoformat(timespec='seconds')}: {counts or 'no rows'}")
    print(f"schema {contents.revision}, sha256 {contents.sha256}")


def _warn_of(history: ChangesSince) -> None:
    if not history.is_whole:
        print(
            "jose-hsm: the audit log does not reach back to the backup. What was destroyed, "
            "revoked, changed or used before it begins is as it was: look it through, or name "
            "older files with --audit.",
            file=sys.stderr,
        )
