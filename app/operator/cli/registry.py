"""``jose-hsm migrate`` and ``jose-hsm reconcile``: the registry fits this version and the token."""

import click

from app.config import Config
from app.keys.owning import claim as claim_token
from app.operator.cli.command import configured
from app.operator.cli.service import (
    changing,
    keyring_of,
    opened,
    record,
    registry_of,
    require_audit_log,
)
from app.registry import Age, Revision, revision_at
from app.registry import migrate as migrate_registry
from app.settings import PREFIX, ConfigError
from app.terminal.failure import CommandFailed
from app.terminal.output import print_list
from hsm import Examination


@click.command()
@click.option("--new", is_flag=True, help="Make a registry even if the token has another one.")
@configured
def migrate(config: Config, *, new: bool) -> int:
    """Create or update the schema of the registry."""
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = revision_at(config.registry_url)
    if before.age is Age.MISSING and not new:
        _require_no_other(config)
    if before.age is not Age.CURRENT:
        require_audit_log(config)
    migrate_registry(config.registry_url)
    after = revision_at(config.registry_url)
    if after != before:
        record(config, "migrate", revision=after.found)
    return 0


def _require_no_other(config: Config) -> None:
    """Raise ``CommandFailed`` if the token belongs to a registry, as far as it tells."""
    found = Examination(config.hsm_settings).registry_of_token()
    if found:
        raise CommandFailed(
            f"there is no registry here, and the token belongs to one, {found}: is "
            f"{PREFIX}STATE_DIR mounted, and {PREFIX}DATABASE_URL right? `jose-hsm restore` puts a "
            "backup here; `jose-hsm migrate --new` and `jose-hsm claim` begin anew"
        )


def require_migrated(config: Config) -> None:
    """Raise ``ConfigError`` if this version cannot work with the registry.

    Raises ``RegistryUnavailable`` if it does not answer now.
    """
    match revision_at(config.registry_url):
        case Revision(age=Age.MISSING):
            raise ConfigError("there is no registry yet: run `jose-hsm migrate`")
        case Revision(age=Age.OLD, found=found, newest=newest):
            raise ConfigError(
                f"the registry has schema {found}, and this version needs {newest}: run "
                "`jose-hsm migrate`"
            )


@click.command()
@changing
def claim(config: Config) -> int:
    """Have the token belong to this registry, and to no other.

    Services with another one say 503 once they are started anew; so the one with this must be.
    """
    identity = registry_of(config).identity()
    claim_token(opened(config), identity)
    record(config, "claim", registry=identity)
    print(f"the token belongs to the registry {identity}; start the service anew")
    return 0


@click.command()
@click.option("--dry-run", is_flag=True, help="Change nothing.")
@configured
def reconcile(config: Config, *, dry_run: bool) -> int:
    """Finish or undo what killed processes left.

    Prints what else differs between registry and token; the exit status is then 1.
    """
    if not dry_run:
        require_audit_log(config)
    found = keyring_of(config).recovery.reconcile(
        dry_run=dry_run, record=lambda kid: record(config, "reconcile", destroyed=str(kid))
    )
    print_list("would settle" if dry_run else "settled", found.settled)
    print_list("in the registry and not on the token", found.missing)
    print_list("on the token and not in the registry (left alone)", found.unknown)
    return 1 if found.missing or found.unknown else 0
