"""Generators make clients of the document, which use the service; linters find nothing in it.

One of them is a dependency of the tests. The long form downloads the others, by the package
managers of their languages, where those are installed.
"""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.throwaway import ROOT
from tests.shared.waiting import PATIENCE_SECONDS

CLIENTS = ROOT / "tests" / "clients"


@dataclass(frozen=True, kw_only=True)
class Tool:
    """What reads the document, in a copy of the folder of its name, and then uses the service."""

    name: str
    commands: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Programs that have to be there."""
    says: str = "all is well"
    """What the last command prints, as an expression: else it has not done all."""

    def run(self, folder: Path, url: str) -> str:
        """Return what the last command prints; fail if one fails."""
        shutil.copytree(CLIENTS / self.name, folder, dirs_exist_ok=True)
        words = {"python": sys.executable, "document": ROOT / "docs" / "openapi.json", "url": url}
        for command in self.commands:
            said = output([word.format(**words) for word in shlex.split(command)], folder)
        return said


def output(command: list[str], folder: Path) -> str:
    """Return what ``command`` prints in ``folder``."""
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}"
    return done.stdout


ALWAYS = Tool(
    name="openapi_python_client",
    commands=(
        "{python} -m openapi_python_client generate --path {document} --fail-on-warning"
        " --meta none --output-path client --config settings.json",
        "{python} calls.py {url}",
    ),
)


def test_a_generated_client_works(server: str, tmp_path: Path) -> None:
    assert re.search(ALWAYS.says, ALWAYS.run(tmp_path, server))


# --- Those that are downloaded, by the package manager of their language ---

MAVEN = "mvn -q -B"
NODE = "npm install --silent --no-audit --no-fund --ignore-scripts"
TYPESCRIPT = f"{NODE} typescript@5.9.3 @types/node@20.19.0"
CALLS_IN_GO = ("go mod tidy", "go run . {url}")
CALLS_IN_TYPESCRIPT = ("npx tsc", "node out/calls.js {url}")


def openapi_generator(language: str, *options: str) -> tuple[str, ...]:
    """Return what generates a client in ``language``."""
    version = "7.14.0"
    told = ("--global-property apiTests=false,modelTests=false", *options)
    return (
        f"{MAVEN} dependency:copy -DoutputDirectory=."
        f" -Dartifact=org.openapitools:openapi-generator-cli:{version}",
        f"java -jar openapi-generator-cli-{version}.jar generate -g {language}"
        f" -i {{document}} -o client {' '.join(told)}",
    )


DOWNLOADED = [
    Tool(
        name="oapi_codegen",
        needs=("go",),
        commands=(
            "mkdir client",
            "go run github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2"
            " -generate types,client -package client -o client/client.go {document}",
            *CALLS_IN_GO,
        ),
    ),
    Tool(
        name="openapi_generator_go",
        needs=("mvn", "java", "go"),
        commands=(
            *openapi_generator("go", "--additional-properties packageName=client,withGoMod=false"),
            *CALLS_IN_GO,
        ),
    ),
    Tool(
        name="openapi_generator_java",
        needs=("mvn", "java"),
        commands=(
            *openapi_generator("java"),
            "cp Calls.java client/src/main/java",
            f"{MAVEN} -f client compile exec:java -Dexec.mainClass=Calls -Dexec.args={{url}}",
        ),
    ),
    Tool(
        name="openapi_generator_python",
        needs=("mvn", "java"),
        commands=(
            *openapi_generator("python", "--additional-properties packageName=client"),
            "{python} -m venv --system-site-packages venv",
            "venv/bin/pip install --quiet ./client",
            "venv/bin/python calls.py {url}",
        ),
    ),
    Tool(
        name="openapi_generator_typescript_fetch",
        needs=("mvn", "java", "npm"),
        commands=(*openapi_generator("typescript-fetch"), TYPESCRIPT, *CALLS_IN_TYPESCRIPT),
    ),
    Tool(
        name="openapi_typescript",
        needs=("npm",),
        commands=(
            f"{TYPESCRIPT} openapi-typescript@7.13.0 openapi-fetch@0.17.0",
            "npx openapi-typescript {document} -o client.d.ts",
            *CALLS_IN_TYPESCRIPT,
        ),
    ),
    Tool(
        name="redocly",
        needs=("npm",),
        commands=(f"{NODE} @redocly/cli@2.77.0", "npx redocly lint --format json {document}"),
        says=r'"totals": {\s*"errors": 0,\s*"warnings": 0,',
    ),
    Tool(
        name="spectral",
        needs=("npm",),
        commands=(
            f"{NODE} @stoplight/spectral-cli@6.16.3",
            "npx spectral lint --ruleset spectral.yaml --fail-severity hint {document}",
        ),
        says="No results with a severity of 'hint' or higher found",
    ),
]


@pytest.mark.long
@pytest.mark.parametrize("tool", DOWNLOADED, ids=lambda one: one.name)
def test_other_generators_make_clients_and_linters_find_nothing(
    tool: Tool, server: str, tmp_path: Path
) -> None:
    for program in tool.needs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    assert re.search(tool.says, tool.run(tmp_path, server))
