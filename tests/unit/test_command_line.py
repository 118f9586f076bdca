"""The command line imports what a command needs, and prints for people or for scripts."""

import json
import os
import pty
import subprocess
import sys
from typing import Any

import pytest

from app.operator.cli import jose_hsm, main
from app.registry import migrate
from app.terminal.output import print_table, spinner
from scripts.throwaway import ROOT

SERVICE = {"flask", "werkzeug", "sqlalchemy", "marshmallow", "prometheus_client", "rich"}
URL = "https://keys.example"
AT_SERVICE = """
import json, sys
from app.operator.cli import jose_hsm
for command in jose_hsm.at_service.values():
    command.load()
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
LISTED: list[Any] = [*jose_hsm.commands.values(), *jose_hsm.at_service.values()]
LOADED = """
import json, sys
from app.operator.cli import main
status = main(json.loads(sys.argv[1]))
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
sys.exit(status)
"""


def imported(*arguments: str) -> set[str]:
    """The modules that a process has at the end of a command."""
    return loaded(LOADED, json.dumps(arguments))


def loaded(code: str, *arguments: str) -> set[str]:
    """The modules that a process has, which says so at its end."""
    settings = {"PKCS11_MODULE": "/none", "TOKEN_LABEL": "none", "PIN_FILE": "/none"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **{f"JOSE_HSM_{name}": text for name, text in settings.items()}},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return set(json.loads(done.stderr))


def test_the_list_of_commands_needs_nothing_but_click():
    assert imported("--help") & (SERVICE | {"hsm", "pkcs11", "cryptography"}) == set()


def test_the_audit_log_is_verified_without_the_service(tmp_path):
    (tmp_path / "audit.log").touch()
    modules = imported("audit", "verify", str(tmp_path / "audit.log"))
    assert "app.audit.chain" in modules
    assert modules & SERVICE == set()


def test_the_commands_at_a_service_need_nothing_of_it():
    assert loaded(AT_SERVICE) & (SERVICE | {"app.config", "hsm", "pkcs11", "cryptography"}) == set()


@pytest.mark.parametrize("listed", LISTED, ids=[command.name for command in LISTED])
def test_the_list_says_of_a_command_what_the_command_says(listed):
    command, name = listed.load(), listed.name
    assert command.name == name
    assert command.help.partition("\n")[0] == listed.help


COMPLETE = "import sys; from app.operator.cli import main; sys.exit(main())"


def test_a_shell_completes_what_is_at_the_service_that_is_set():
    typed = {"COMP_WORDS": "jose-hsm keys im", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", COMPLETE],
        env={**os.environ, "_JOSE_HSM_COMPLETE": "bash_complete", "JOSE_HSM_URL": URL, **typed},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["plain,import"]


@pytest.mark.parametrize("arguments", [(), ("keys",), ("keys", "list", "--state", "x"), ("x",)])
def test_what_is_no_command_has_the_status_of_wrong_usage(capsys, arguments):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Usage: jose-hsm ")


def test_help_is_no_failure(capsys):
    for arguments in (["-h"], ["keys", "list", "--help"]):
        assert main(arguments) == 0
    assert "--owner" in capsys.readouterr().out


def test_interruption_has_the_status_of_a_signal(monkeypatch, capsys):
    def interrupted(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.terminal.lazy.import_module", interrupted)
    assert main(["migrate"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "jose-hsm: interrupted"


TYPED = "import sys; from app.operator.cli import main; sys.exit(main())"


def typed(
    redirection: str, *arguments: str, **environment: str
) -> "subprocess.CompletedProcess[bytes]":
    """Type a command, whose output a shell leads elsewhere."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", TYPED]
    own = {name: text for name, text in os.environ.items() if not name.startswith("JOSE_HSM_")}
    return subprocess.run(
        [*command, *arguments], env=own | environment, cwd=ROOT, check=False, capture_output=True
    )


@pytest.mark.parametrize("buffered", ["", "1"])
def test_what_cannot_be_written_is_one_line(buffered):
    """The status is not 1, by which a signature is bad."""
    done = typed(">/dev/full", "--help", PYTHONUNBUFFERED=buffered)
    assert done.returncode == 2
    assert done.stderr == b"jose-hsm: [Errno 28] No space left on device\n"


def test_a_directory_that_cannot_be_made_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("JOSE_HSM_STATE_DIR", "/proc/none")
    for name in ("PKCS11_MODULE", "TOKEN_LABEL", "PIN"):
        monkeypatch.setenv(f"JOSE_HSM_{name}", "none")
    assert main(["migrate"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "jose-hsm: [Errno 2] No such file or directory: '/proc/none'"
    ]


def test_who_has_closed_standard_output_gets_none_of_it():
    done = typed(">&-", "--help")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_who_has_closed_standard_error_gets_none_of_it_in_the_output():
    done = typed("2>&-", "config", "show")
    assert (done.returncode, done.stdout) == (2, b"")


def test_who_has_closed_standard_input_is_not_asked():
    done = typed("<&-", "--url", URL, "keys", "destroy", "key")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"jose-hsm: there is nobody to ask: add --yes\n"


@pytest.mark.parametrize("buffered", ["", "1"])
def test_who_does_not_read_on_is_told_nothing(buffered):
    """The status is not 1, by which a signature is bad."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"PYTHONUNBUFFERED": buffered}
    command = [sys.executable, "-c", TYPED, "--help"]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, check=False, stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (2, b"")


def test_an_argument_that_is_not_in_utf_8_is_one_line(tmp_path):
    settings = {"PKCS11_MODULE": "/none", "TOKEN_LABEL": "none", "PIN": "none"}
    settings |= {"STATE_DIR": str(tmp_path), "DATABASE_URL": f"sqlite:///{tmp_path}/registry.db"}
    migrate(settings["DATABASE_URL"])
    own = {f"JOSE_HSM_{name}": text for name, text in settings.items()}
    done = typed("", "keys", "list", "--owner", "\udcff", **own)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"jose-hsm: an argument or a setting is not in UTF-8\n"


def test_characters_that_a_terminal_lacks_are_printed_by_number():
    settings = {"JOSE_HSM_PKCS11_MODULE": "/none", "JOSE_HSM_PIN": "none"}
    shown = typed(
        "", "config", "show", **settings, JOSE_HSM_TOKEN_LABEL="鍵", PYTHONIOENCODING="ascii"
    )
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert rb"\u9375" in shown.stdout


HEAD, ROWS = ("kid", "name"), (("0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11", "[red]x"), ("-", None))


def test_a_table_for_scripts_is_columns_of_text(capsys):
    print_table(HEAD, ROWS)
    assert capsys.readouterr().out.splitlines() == [
        "kid                                   name",
        "0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11  [red]x",
        "-",
    ]


class Terminal:
    """A pseudo-terminal of so many columns, and what is written to it."""

    def __init__(self) -> None:
        self._master, self._slave = pty.openpty()
        self.file = os.fdopen(self._slave, "w", buffering=1)

    def written(self) -> str:
        self.file.close()
        chunks = []
        try:
            while chunk := os.read(self._master, 65_536):
                chunks.append(chunk)
        except OSError:  # the end, as Linux has it
            os.close(self._master)
        return b"".join(chunks).decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    return Terminal()


def test_a_table_for_people_loses_nothing_and_takes_no_name_for_markup(monkeypatch, terminal):
    monkeypatch.setattr(sys, "stdout", terminal.file)
    print_table(HEAD, ROWS)
    written = terminal.written()
    assert ROWS[0][0] in written
    assert "[red]x" in written
    assert "─" in written


def test_a_terminal_shows_what_is_under_way_and_a_script_does_not(monkeypatch, terminal, capsys):
    with spinner("opening") as show:
        show("opened")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", terminal.file)
    with spinner("opening") as show:
        show("opened")
    assert "opened" in terminal.written()
