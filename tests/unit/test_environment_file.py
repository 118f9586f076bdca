"""Files of settings are read as systemd reads them, and what it would pass over is an error."""

import subprocess
from pathlib import Path

import pytest

from app.operator.cli.environment_file import parse, read, written
from app.settings import ConfigError

GENERATOR = Path("/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator")

READ = {
    "A=plain value \t\n": "plain value",
    "  A = indented\n": "indented",
    "A=\n": "",
    "A=": "",
    "A=first\nA=last\n": "last",
    "# B=no\n; B=no\n\nA=after comments": "after comments",
    "A=x # no comment": "x # no comment",
    "A=a=b": "a=b",
    "A=one \\\n  line": "one   line",
    "A=tail\\ \n": "tail ",
    r"A=a\ b\tc\\": "a btc\\",
    'A="  kept  "  ': "  kept  ",
    r'A="\"\\\`\$ \n"': '"\\`$ \\n',
    'A="one \\\nline"': "one line",
    'A="two\nlines"': "two\nlines",
    r"A='\" \\ $'": r"\" \\ $",
    "A='a' \"b\" c 'd'": "abc 'd'",
    "A=it's": "it's",
    "A=\u00a0\u2028x\u00a0": "\u00a0\u2028x\u00a0",
    "A=win\r\nB=dows\r\n": "win",
}
REFUSED = {
    "A=1\nexport B=2": "line 2: not of the form NAME=VALUE",
    "A": "line 1: not of the form NAME=VALUE",
    "A=\\": "line 1: not of the form NAME=VALUE",
    "\n\n2A=x": "line 3: '2A' cannot be the name of a variable",
    'A="x\nB=y': "line 1: a quotation mark without its counterpart",
    "A='x": "line 1: a quotation mark without its counterpart",
    "A=x\0y": "line 1: a character NUL",
    "# A \\\nB=x": "line 1: a comment must not end with a backslash",
}


@pytest.mark.parametrize("text", READ)
def test_a_value_is_what_systemd_makes_of_it(text):
    assert parse(text)["A"] == READ[text]


COMPARED = [text for text, value in READ.items() if value and not {"$", "\n"} & set(value)]
"""Those that the generator below neither expands nor prints in a way of its own."""


@pytest.mark.parametrize("text", COMPARED)
def test_systemd_itself_reads_the_same(text, tmp_path):
    """By the generator of environment.d(5), which has the same parser."""
    if not GENERATOR.exists():
        pytest.skip("systemd is not installed")
    (tmp_path / "environment.d").mkdir()
    (tmp_path / "environment.d" / "a.conf").write_bytes(text.encode())
    done = subprocess.run(
        [GENERATOR], env={"XDG_CONFIG_HOME": str(tmp_path)}, check=True, capture_output=True
    )
    shell = f'{done.stdout.decode()}printf %s "$A"'
    assert subprocess.check_output(["bash", "-c", shell], text=True) == READ[text]


@pytest.mark.parametrize("text", REFUSED)
def test_a_line_that_is_none_is_refused_with_its_number(text):
    with pytest.raises(ConfigError) as refused:
        parse(text)
    assert str(refused.value) == REFUSED[text]


def test_a_file_that_cannot_be_read_is_said_to_be_that(tmp_path):
    with pytest.raises(ConfigError, match=r"none cannot be read: No such file or directory$"):
        read(tmp_path / "none")
    (tmp_path / "latin").write_bytes(b"A=\xe9")
    with pytest.raises(ConfigError, match=r"latin is not in UTF-8$"):
        read(tmp_path / "latin")


@pytest.mark.parametrize("value", [*READ.values(), "'", "a\nb", "$HOME `id`", "\\"])
def test_what_is_written_is_read_as_the_same(value):
    assert parse(written({"A": value, "B": "b"})) == {"A": value, "B": "b"}
