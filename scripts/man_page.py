"""The manual page ``jose-hsm(1)``, made of the commands themselves as click has them."""

import inspect
import re
from collections.abc import Iterator, Mapping

import click

from app.operator.cli import jose_hsm
from app.terminal.lazy import LazyCommand

_WIDTH = 1000  # lines are filled by whoever shows the page
_HEAD = """\
.\\" Made by `make pages`; do not edit.
.TH JOSE\\-HSM 1 "" jose\\-hsm "User Commands"
.SH NAME
jose\\-hsm \\- JOSE on keys that never leave the HSM
.SH SYNOPSIS
.B jose\\-hsm
[\\fB\\-\\-url\\fR \\fIURL\\fR] [\\fB\\-\\-token\\-file\\fR \\fIFILE\\fR]
\\fICOMMAND\\fR [\\fIARGS\\fR]
.br
.B jose\\-hsm
[\\fB\\-\\-settings\\fR \\fIFILE\\fR]
\\fICOMMAND\\fR [\\fIARGS\\fR]
"""
_TAIL = """\
.SH EXIT STATUS
0: done, or valid. 1: not valid, or what a command says above.
2: not asked, as wrong usage or a file that cannot be read. 3: refused by the service.
4: not now, as nobody answers or the service cannot. 130: interrupted.
"""


def man_page() -> str:
    """Return the page in the language of man(7)."""
    said = jose_hsm.context_settings  # a command keeps the option for help that it is asked first
    top = click.Context(jose_hsm, info_name="jose-hsm", terminal_width=_WIDTH, **said)
    return "".join(
        (
            _HEAD,
            ".SH DESCRIPTION\n" + _text(jose_hsm.help or ""),
            ".SH OPTIONS\n",
            *_parameters(jose_hsm, top),
            *_section("COMMANDS AT A SERVICE, WITH \\-\\-URL", jose_hsm.at_service, top),
            *_section("COMMANDS BESIDE THE SERVICE", jose_hsm.commands, top),
            _TAIL,
        )
    )


def _section(
    title: str, commands: Mapping[str, click.Command], parent: click.Context
) -> Iterator[str]:
    yield f".SH {title}\n"
    for name in sorted(commands):
        yield from _command(name, commands[name], parent)


def _command(name: str, listed: click.Command, parent: click.Context) -> Iterator[str]:
    command = listed.load() if isinstance(listed, LazyCommand) else listed
    context = click.Context(command, info_name=name, parent=parent, terminal_width=_WIDTH)
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            if found:
                yield from _command(each, found, context)
        return
    pieces = command.collect_usage_pieces(context)
    yield f".SS {_escaped(' '.join((context.command_path, *pieces)))}\n"
    yield _text(command.help or "")
    yield from _parameters(command, context)


def _parameters(command: click.Command, context: click.Context) -> Iterator[str]:
    records = (parameter.get_help_record(context) for parameter in command.params)
    for record in filter(None, records):
        yield f".TP\n\\fB{_escaped(record[0])}\\fR\n{_text(record[1])}"


def _text(help_: str) -> str:
    """Return paragraphs; what stands alone in a docstring is filled into lines."""
    paragraphs = re.split(r"\n{2,}", inspect.cleandoc(help_))
    return ".PP\n".join(f"{_escaped(' '.join(one.split()))}\n" for one in paragraphs)


def _escaped(text: str) -> str:
    """Return text that begins no request and has no escapes."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
