"""``jose-hsm``: what an operator does beside the service, and anybody at one."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import click
from click.core import ParameterSource

from app.server.confinement import confine
from app.terminal.failure import CommandFailed
from app.terminal.lazy import LazyCommand
from app.terminal.output import discard_output, prepare_output

_BESIDE: Final = MappingProxyType(
    {
        "serve": ("serving", "Serve as the settings say."),
        "dev": ("serving", "Serve on loopback with a token for development."),
        "migrate": ("registry", "Create or update the schema of the registry."),
        "config": ("settings", "Show and check the settings."),
        "claim": ("registry", "Have the token belong to this registry, and to no other."),
        "reconcile": ("registry", "Finish or undo what killed processes left."),
        "audit": ("audit", "Look after the audit log."),
        "token": ("tokens", "Create, list and revoke API tokens."),
        "keys": ("keys", "List, show, grant, deactivate, destroy, restore, adopt and wrap keys."),
        "keysets": ("keysets", "List, show, rotate and revoke versions of key sets."),
        "kek": ("kek.commands", "Create, move and rotate the key that encrypts keys."),
        "doctor": ("doctor", "Examine the installation and say what to do."),
        "backup": ("backup", "Write the registry to a file, while the service serves."),
        "restore": ("backup", "Put a backup in the place of the registry."),
    }
)
"""The module of each command beside the service, and what the list of commands says of it."""

_AT_SERVICE: Final = MappingProxyType(
    {
        "keys": ("keys", "Create, import, list, show, change and destroy keys."),
        "keysets": ("keysets", "Make, list, show, rotate and destroy key sets."),
        "tags": ("tags", "List, add and remove the tags of a key."),
        "grants": ("grants", "List, give and take what others may do with a key."),
        "certificates": ("certificates", "Ask for the certificate of a key, and keep it."),
        "sign": ("signing", "Sign data: print a compact JWS."),
        "sign-raw": ("signing", "Sign data, or a digest of it, without a header."),
        "verify": ("signing", "Tell whether a JWS is valid; the status is 1 if not."),
        "encrypt": ("encryption", "Encrypt data: print a compact JWE."),
        "decrypt": ("encryption", "Decrypt a JWE: print the data as it is."),
        "rewrap": ("encryption", "Make a JWE one for another key."),
        "mac": ("signing", "Compute the MAC of data, or compare it."),
        "jwks": ("offers", "Print the published keys, a JWK Set."),
        "random": ("offers", "Print random bytes of the token."),
        "batch": ("offers", "Send many requests at once, in JSON."),
        "capabilities": ("offers", "Show what the service and its token offer."),
        "ready": ("offers", "Tell whether the service can serve; the status is 4 if not."),
        "request": ("offers", "Send any request of the API, in JSON."),
    }
)
"""The same of each command at a service."""

_INTERRUPTED: Final = 130  # as a shell has it, 128 + SIGINT


def _commands(room: str, table: Mapping[str, tuple[str, str]]) -> dict[str, click.Command]:
    return {
        name: LazyCommand(name, f"{room}.{module}", summary)
        for name, (module, summary) in table.items()
    }


class JoseHsm(click.Group):
    """The commands beside the service, and those at one, which ``--url`` names.

    ``keys`` and ``keysets`` are both. What is typed counts more than what is in the environment.
    """

    def __init__(self, *arguments: Any, at_service: dict[str, click.Command], **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.at_service = at_service

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *self.at_service})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command that is meant where there are two."""
        beside = super().get_command(ctx, cmd_name)
        is_at_service = bool(ctx.params.get("url")) and not ctx.params.get("settings")
        if is_at_service or beside is None:
            return self.at_service.get(cmd_name, beside)
        return beside

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; refuse options that say nothing to it."""
        name, command, rest = super().resolve_command(ctx, args)
        if not ctx.resilient_parsing and _is_typed(ctx, "url"):
            if _is_typed(ctx, "settings"):
                raise click.UsageError("--url is for a service, --settings beside one: not both")
            if name not in self.at_service:
                raise click.UsageError(f"{name} works beside the service: leave --url out")
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both lists."""
        for title, commands in (
            ("At a service, with --url", self.at_service),
            ("Beside the service", self.commands),
        ):
            limit = formatter.width - 6 - max(map(len, commands))
            with formatter.section(title):
                formatter.write_dl(
                    [(name, commands[name].get_short_help_str(limit)) for name in sorted(commands)]
                )


def _is_typed(context: click.Context, option: str) -> bool:
    return context.get_parameter_source(option) is ParameterSource.COMMANDLINE


jose_hsm: Final = JoseHsm(
    "jose-hsm",
    help="Ask a service, or look after one beside it with the settings in the environment.",
    params=[
        click.Option(
            ["--url"],
            envvar="JOSE_HSM_URL",
            show_envvar=True,
            metavar="URL",
            help="Ask the service at this address: https://keys.example.",
        ),
        click.Option(
            ["--token-file"],
            envvar="JOSE_HSM_API_TOKEN_FILE",
            show_envvar=True,
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Ask it as whom the API token in this file names.",
        ),
        click.Option(
            ["--settings"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Beside it: take these, too, from a file such as systemd's EnvironmentFile=.",
        ),
    ],
    context_settings={"help_option_names": ["-h", "--help"]},
    commands=_commands(__name__, _BESIDE),
    at_service=_commands("app.client.commands", _AT_SERVICE),
)
click.version_option(package_name="jose-hsm", message="%(prog)s %(version)s")(jose_hsm)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, that of the process without ``arguments``; return its exit status."""
    if arguments is None:
        confine()
        prepare_output()
    try:
        status = int(jose_hsm.main(arguments, prog_name="jose-hsm", standalone_mode=False))
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        status = max(error.exit_code, CommandFailed.exit_code)  # a file that cannot be opened has 1
    except OSError as error:  # a disk that is full, a file or directory of somebody else
        if arguments is None:
            discard_output()
        status = CommandFailed.exit_code
        if not isinstance(error, BrokenPipeError):  # who does not read on has what he wants
            print(f"jose-hsm: {error}", file=sys.stderr)
    except UnicodeEncodeError:
        print("jose-hsm: an argument or a setting is not in UTF-8", file=sys.stderr)
        status = CommandFailed.exit_code
    except SystemExit as end:  # click's, who tells a shell how to complete, or is not read on
        status = CommandFailed.exit_code if end.code else 0
    except click.Abort:
        print("jose-hsm: interrupted", file=sys.stderr)
        status = _INTERRUPTED
    return status
