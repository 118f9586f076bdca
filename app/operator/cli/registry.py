"""``jose-hsm migrate`` and ``jose-hsm reconcile``: the registry fits this version and the token."""

import click

from app.config import Config
from app.operator.cli.command import configured
from app.operator.cli.output import print_list
from app.operator.cli.service import keyring_of, record
from app.registry import migrate as migrate_registry
from app.registry import revision_at


@click.command()
@configured
def migrate(config: Config) -> int:
    """Create or update the schema of the registry."""
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = revision_at(config.registry_url).found
    migrate_registry(config.registry_url)
    after = revision_at(config.registry_url).found
    if after != before:
        record(config, "migrate", revision=after)
    return 0


@click.command()
@click.option("--dry-run", is_flag=True, help="Change nothing.")
@configured
def reconcile(config: Config, *, dry_run: bool) -> int:
    """Finish or undo what killed processes left.

    Prints what else differs between registry and token; the exit status is then 1.
    """
    found = keyring_of(config).recovery.reconcile(
        dry_run=dry_run, record=lambda kid: record(config, "reconcile", destroyed=str(kid))
    )
    print_list("would settle" if dry_run else "settled", found.settled)
    print_list("in the registry and not on the token", found.missing)
    print_list("on the token and not in the registry (left alone)", found.unknown)
    return 1 if found.missing or found.unknown else 0
