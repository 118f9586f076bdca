"""``jose-hsm doctor``: a good installation, and broken ones with what is to be done."""

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from sqlalchemy import create_engine, text

from app.config import Config
from app.operator.doctor import checks, workers
from app.operator.doctor.advice import ADVICE, COMMON
from app.registry import migrate
from app.settings import ConfigError
from hsm import ALGORITHMS, RATES
from hsm.examination.known_answers import examples
from scripts.throwaway import ROOT, make_token
from tests.faults.control import Fault, Faults
from tests.faults.service import CONFIGURATION
from tests.shared.accounts import nobody, shared_directory
from tests.shared.api import Api
from tests.shared.bodies import ML_DSA
from tests.shared.command import jose_hsm
from tests.shared.forks import completed, server
from tests.shared.waiting import STATE, until

PIN_LOCKED = 0xA4
FUNCTION_NOT_SUPPORTED = 0x54
TEMPLATE_INCONSISTENT = 0xD1
LOADED = (
    "from tests.faults.control import obey; obey(); from app.operator.cli import main; exit(main())"
)
TO_THE_LOGIN = ("settings", "state_dir", "disk.state", "disk.token", "pin_file", "pin_mode")
BESIDE = ("registry", "audit_log", "clock")
WRONG = "not-the-pin"  # no number: one that is printed may hold it by chance


class Report(NamedTuple):
    """What ``jose-hsm doctor --json`` has said."""

    status: int
    result: str
    steps: dict[str, dict[str, Any]]
    progress: list[str]

    def results(self, *names: str) -> set[str]:
        return {self.steps[name]["result"] for name in names}

    @property
    def failed(self) -> list[str]:
        return [name for name, step in self.steps.items() if step["result"] == "failed"]


class Installation:
    """A token and a registry of one test's own, whose calls into the library are counted."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self.state_dir = directory / "state"
        self.settings = dict(settings)
        self.faults = Faults(directory / "faults")

    @property
    def objects(self) -> set[Path]:
        return set((self.state_dir / "tokens").glob("*/*.object"))

    def run(self, *options: str, before: str = "") -> "subprocess.CompletedProcess[str]":
        arguments = [before + LOADED, "doctor", *options]
        settings = self.settings | self.faults.environment
        return completed("python", arguments, settings)

    def examine(self, *options: str, before: str = "") -> Report:
        done = self.run("--json", *options, before=before)
        assert "Traceback" not in done.stderr, done
        assert (self.state_dir / "pin").read_text() not in done.stdout + done.stderr
        said = json.loads(done.stdout)
        steps = {step["step"]: step for step in said["steps"]}
        return Report(done.returncode, said["result"], steps, done.stderr.splitlines())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """An installation to copy: to make one takes a second."""
    state = tmp_path_factory.mktemp("made") / "state"
    return state, make_token(state)


@pytest.fixture
def installation(made: tuple[Path, dict[str, str]], tmp_path: Path) -> Installation:
    state, settings = made
    copied = tmp_path / "state"
    shutil.copytree(state, copied)
    conf = copied / "softhsm.conf"
    conf.write_text(conf.read_text().replace(str(state), str(copied)))
    return Installation(
        tmp_path,
        {name: value.replace(str(state), str(copied)) for name, value in settings.items()},
    )


def assert_fails_at(report: Report, step: str, *advice: str) -> None:
    """Only ``step`` has failed, what it needs not is looked at, and it is said what to do."""
    assert report.status == 1
    assert report.result == "failed"
    assert report.failed == [step]
    for part in advice:
        assert part in report.steps[step]["advice"]
    assert report.results(*(name for name in (*TO_THE_LOGIN, *BESIDE) if name != step)) == {"ok"}


# --- A good one ---


def test_a_good_installation_is_good_beside_its_service_and_nothing_is_left(serve, tmp_path):
    environment = make_token(tmp_path / "state")
    tokens = tmp_path / "state" / "tokens"
    statuses, is_over = set(), threading.Event()
    with serve(environment, workers=1) as url:
        live = Api.over_http(url)
        kid = live.create(kty="EC", crv="P-256", alg="ES256")["kid"]
        live.ok("/wrapping-keys", {})
        before = set(tokens.glob("*/*.object"))

        def sign() -> None:
            body = {"kid": kid, "alg": "ES256", "data": ""}
            while not is_over.is_set():
                statuses.add(live.post("/sign", body).status)
                time.sleep(0.05)

        client = threading.Thread(target=sign)
        client.start()
        until(lambda: statuses)
        done = jose_hsm(environment, "doctor", "--json")
        is_over.set()
        client.join()
    assert done.returncode == 0, done
    steps = {step["step"]: step for step in json.loads(done.stdout)["steps"]}
    assert {step["result"] for step in steps.values()} == {"ok", "skipped"}
    skipped = {name for name in steps if steps[name]["result"] == "skipped"}
    assert skipped == {*(f"algorithm {name}" for name in ML_DSA), "algorithm RSA1_5"}
    assert {name for name in steps if " " in name} == {
        *(f"algorithm {name}" for name in ALGORITHMS),
        *(f"rate {name}" for name in RATES),
    }
    assert {name.partition(" ")[0] for name in steps} == set(ADVICE)
    assert all(steps[f"rate {name}"]["facts"]["per_second"] > 0 for name in RATES)
    assert "RFC 7515 A.2" in steps["algorithm RS256"]["seen"]
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == list(steps)
    assert statuses == {200}
    assert set(tokens.glob("*/*.object")) == before


def test_each_algorithm_that_takes_keys_has_a_known_answer():
    assert set(ALGORITHMS) - examples().keys() == {*ML_DSA}


def test_there_is_advice_for_every_symptom():
    rooms = (ROOT / "hsm" / "examination", ROOT / "app" / "operator" / "doctor")
    sources = [source for room in rooms for source in room.glob("*.py")]
    named = {
        symptom
        for source in sources
        for symptom in re.findall(r'Finding\(\s*"(\w+)"', source.read_text())
    }
    assert len(named) > 20
    assert named <= {symptom for words in (*ADVICE.values(), COMMON) for symptom in words}


# --- Broken ones ---


def test_a_wrong_module(installation):
    installation.settings["JOSE_HSM_PKCS11_MODULE"] = "/nonexistent/module.so"
    report = installation.examine()
    assert_fails_at(report, "module", "JOSE_HSM_PKCS11_MODULE", "libsofthsm2.so")
    assert report.results("token", "login", "keys") == {"skipped"}


def test_no_token(installation):
    installation.settings["JOSE_HSM_TOKEN_LABEL"] = "another"
    report = installation.examine()
    assert_fails_at(report, "token", "JOSE_HSM_TOKEN_LABEL", "SOFTHSM2_CONF")
    assert "label 'another'; there: " in report.steps["token"]["seen"]
    assert "'throwaway'" in report.steps["token"]["seen"]
    assert installation.faults.calls("C_Login") == 0


def test_a_wrong_pin_is_tried_once(installation):
    pin, before = installation.state_dir / "pin", installation.objects
    right = pin.read_text()
    pin.write_text(WRONG)
    report = installation.examine()
    assert_fails_at(report, "login", str(pin), "security officer")
    again = installation.examine()
    assert_fails_at(again, "pin_latch", str(pin))
    assert again.results("login") == {"skipped"}
    assert installation.faults.calls("C_Login") == 1
    pin.write_text(right)
    mended = installation.examine("--quick")
    assert (mended.status, mended.steps["flags"]["symptom"]) == (0, "count_low")
    assert mended.steps["canary"]["symptom"] == "absent"
    assert not any(name.startswith("rate") for name in mended.steps)
    assert installation.faults.calls("C_Login") == 2
    assert installation.objects == before


def state_of(url: str) -> str:
    return requests.get(f"{url}/health/ready", timeout=STATE.seconds).text


@pytest.mark.long
def test_a_pin_that_was_refused_here_is_not_tried_by_the_service(installation):
    (installation.state_dir / "pin").write_text(WRONG)
    assert installation.examine().failed == ["login"]
    environment = installation.settings | installation.faults.environment
    with server(environment, workers=1, configuration=CONFIGURATION) as service:
        until(lambda: "PIN was refused" in state_of(service.url))
    assert installation.faults.calls("C_Login") == 1


def test_a_locked_pin(installation):
    installation.faults.inject(Fault(function="C_Login", value=PIN_LOCKED))
    report = installation.examine()
    assert_fails_at(report, "login", "security officer")
    assert report.steps["login"]["symptom"] == "locked"
    said = installation.run().stdout
    assert said.startswith("step ")
    assert "\npin_latch: failed: this PIN has been refused before" in said
    assert installation.faults.calls("C_Login") == 1


def test_a_pin_file_that_everybody_can_read(installation):
    pin = installation.state_dir / "pin"
    pin.chmod(0o644)
    report = installation.examine("--quick")
    assert_fails_at(report, "pin_mode", f"chmod 0600 {pin}")
    assert report.results("login", "proof", "keys") == {"ok"}
    pin.chmod(0o640)
    installation.settings["JOSE_HSM_PKCS11_MODULE"] = installation.settings["SOFTHSM2_CONF"]
    report = installation.examine()
    assert report.results("pin_mode") == {"warning"}
    assert report.steps["module"]["symptom"] == "not_a_module"


@pytest.mark.parametrize("is_directory", [True, False])
def test_a_file_that_holds_no_pin_is_told(installation, is_directory):
    path = installation.state_dir / "pin"
    if is_directory:
        installation.settings["JOSE_HSM_PIN_FILE"] = str(installation.state_dir)
    else:
        path.write_bytes(b"\xff")
    found = checks.pin_file(Config.from_env(installation.settings))
    assert found.symptom == "empty"


def test_what_one_may_not_see_is_no_fault_of_ours():
    """As for an operator who is not the user of the service."""
    with shared_directory() as shared:
        (closed := shared / "closed").mkdir()
        (closed / "state").mkdir()
        config = Config.from_env(
            {
                "JOSE_HSM_PKCS11_MODULE": "/module.so",
                "JOSE_HSM_TOKEN_LABEL": "label",
                "JOSE_HSM_PIN_FILE": str(closed / "pin"),
                "JOSE_HSM_STATE_DIR": str(closed / "state"),
            }
        )
        closed.chmod(0)
        with nobody():
            found = [look(config) for look in (checks.state_dir, checks.pin_file, checks.audit_log)]
            found.append(checks.disk(config.state_dir))
        closed.chmod(0o700)
    symptoms = ["out_of_reach", "unreadable", "not_writable", "unknown"]
    assert [each.symptom for each in found] == symptoms


def test_a_directory_is_no_audit_log(installation, tmp_path):
    installation.settings["JOSE_HSM_AUDIT_LOG"] = str(tmp_path)
    assert checks.audit_log(Config.from_env(installation.settings)).symptom == "not_writable"


@pytest.mark.parametrize("number", ["0", "many"])
def test_what_is_no_number_of_workers_is_one_line(installation, number):
    done = completed("jose-hsm", ["doctor"], installation.settings | {"WEB_CONCURRENCY": number})
    message = "jose-hsm: WEB_CONCURRENCY must be a whole number above 0, 1000000000 at most\n"
    assert (done.returncode, done.stderr) == (2, message)


def test_an_empty_number_of_workers_is_as_none(monkeypatch):
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    number = workers()
    monkeypatch.setenv("WEB_CONCURRENCY", "")
    assert workers() == number


def test_a_registry_that_is_not_the_one_of_the_token(installation):
    assert installation.examine("--quick").steps["owner"]["symptom"] == "none"
    claimed = completed("jose-hsm", ["claim"], installation.settings)
    assert claimed.returncode == 0, claimed
    assert installation.examine("--quick").results("owner") == {"ok"}
    for path in installation.state_dir.glob("registry.db*"):
        path.unlink()
    migrate(f"sqlite:///{installation.state_dir}/registry.db")
    report = installation.examine("--quick")
    assert report.failed == ["owner"]
    assert "jose-hsm claim" in report.steps["owner"]["advice"]


def test_a_registry_from_the_future(installation):
    engine = create_engine(f"sqlite:///{installation.state_dir}/registry.db")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    report = installation.examine("--quick")
    assert report.failed == ["registry"]
    assert report.status == 1
    assert "9999 is from the future" in report.steps["registry"]["seen"]
    assert "newer jose-hsm" in report.steps["registry"]["advice"]
    assert report.results("login", "proof", "clock") == {"ok"}
    assert report.results("keys") == {"skipped"}
    with pytest.raises(ConfigError, match="9999"):
        migrate(f"sqlite:///{installation.state_dir}/registry.db")


@pytest.mark.parametrize(
    ("url", "advice"),
    [("registry.db", "must be a SQLAlchemy URL"), ("mysql://host/name", "needs a driver")],
)
def test_a_registry_that_cannot_be_looked_for(installation, url, advice):
    installation.settings["JOSE_HSM_DATABASE_URL"] = url
    assert_fails_at(installation.examine("--quick"), "registry", advice)


@pytest.fixture
def full(installation: Installation) -> Iterator[Installation]:
    """An installation whose token is on a disk that is full."""
    tokens = installation.state_dir / "tokens"
    files = tokens.rename(installation.state_dir / "elsewhere")
    tokens.mkdir()
    mount: list[str | Path] = ["mount", "-t", "tmpfs", "-o", "size=400k", "jose-hsm", tokens]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("a small disk takes root to mount")
    subprocess.run(["cp", "-a", f"{files}/.", tokens], check=True)
    with suppress(OSError), (tokens / "filling").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    yield installation
    subprocess.run(["umount", "--lazy", tokens], check=True)


def test_a_full_disk(full):
    report = full.examine()
    assert_fails_at(report, "disk.token", "Free space", "no login is tried")
    assert report.results("token", "pin_latch") == {"ok"}
    assert report.results("login", "proof") == {"skipped"}
    assert full.faults.calls("C_Login") == 0
    assert all(path.stat().st_size for path in full.objects)


class Clocks:
    """Both clocks of a machine, for a process that stands still before its reading ``stop``."""

    def __init__(self, stop: int) -> None:
        self.ahead, self._seconds, self._stop = time.time(), 0.0, stop

    def monotonic(self) -> float:
        self._stop -= 1
        self._seconds += 3 if self._stop == 0 else 0
        return self._seconds

    def time(self) -> float:
        return self.ahead + self.monotonic()


@pytest.mark.parametrize("stop", range(1, 10))
def test_a_clock_is_set_by_whoever_sets_it_and_not_by_a_pause(config, monkeypatch, stop):
    clocks = Clocks(stop)
    monkeypatch.setattr(checks, "time", clocks)
    clock = checks.Clock()
    assert clock.look(config, None, has_registry=False).symptom == ""
    clocks.ahead += 5
    found = clock.look(config, None, has_registry=False)
    assert (found.symptom, found.facts["seconds"]) == ("set", 5.0)


def without(installation: Installation, mechanism: str) -> None:
    """Have the token do without ``mechanism``: SoftHSM takes only a list of all others."""
    rows = ALGORITHMS.values()
    used = {row.mechanism for row in rows} | {
        kind.generation for row in rows for kind, _ in row.keys
    }
    names = {f"CKM_{each.name}" for each in used} | set(BESIDE_THEM)
    left = ",".join(sorted(names - {mechanism, "CKM_ML_DSA", "CKM_ML_DSA_KEY_PAIR_GEN"}))
    with Path(installation.settings["SOFTHSM2_CONF"]).open("a") as conf:
        conf.write(f"slots.mechanisms = {left}\n")


BESIDE_THEM = ("CKM_RSA_X_509", "CKM_SHA256", "CKM_SHA_1", "CKM_SHA384", "CKM_SHA512")


def test_a_mechanism_that_is_missing_matters_to_keys_that_need_it(installation):
    without(installation, "CKM_SHA512_HMAC")
    add_key(installation, "HS512")
    report = installation.examine("--quick")
    assert report.status == 1
    assert report.failed == ["algorithm HS512", "keys"]  # the key is a row only
    assert "keys of the registry are bound to it" in report.steps["algorithm HS512"]["seen"]
    assert "slots.mechanisms" in report.steps["algorithm HS512"]["advice"]
    other = report.steps["algorithm A256CBC-HS512"]
    assert (other["result"], other["symptom"]) == ("warning", "lacking")
    assert report.results("algorithm HS256", "algorithm A256GCM", "clock") == {"ok"}


def test_what_the_settings_forbid_is_no_want_of_the_token(installation):
    installation.settings["JOSE_HSM_FIPS"] = "1"
    step = installation.examine("--quick").steps["algorithm ML-DSA-44"]
    assert step["seen"] == "not offered in FIPS mode"


def test_keys_under_a_key_encryption_key_that_the_token_lacks(installation):
    add_key(installation, "HS512")
    engine = create_engine(f"sqlite:///{installation.state_dir}/registry.db")
    with engine.begin() as connection:
        values = {"kek": "01a22639-c058-cfe3-85b4-664ba238d868"}
        connection.execute(text("UPDATE keys SET storage = 'wrapped', kek = :kek"), values)
    engine.dispose()
    report = installation.examine("--quick")
    assert report.failed == ["keks"]
    assert "01a22639-c058-cfe3-85b4-664ba238d868" in report.steps["keks"]["seen"]
    assert "jose-hsm kek import" in report.steps["keks"]["advice"]


def test_workers_that_keep_keys_wrapped_need_a_session_more(installation):
    installation.settings |= {"JOSE_HSM_STORAGE": "wrapped", "WEB_CONCURRENCY": "3"}
    assert "21 opened at once" in installation.examine("--quick").steps["sessions"]["seen"]


def add_key(installation: Installation, alg: str) -> None:
    """Add a row that no key on the token belongs to."""
    engine = create_engine(f"sqlite:///{installation.state_dir}/registry.db")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO keys (kid, owner, kty, alg, bits, origin, residency, state, host,"
                " created_at, changed_at) VALUES ('0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11', 'x',"
                " 'oct', :alg, 512, 'generated', 'token', 'active', 'h', '2026-01-01 00:00:00',"
                " '2026-01-01 00:00:00')"
            ),
            {"alg": alg},
        )
    engine.dispose()


@pytest.mark.long
def test_a_token_that_hangs_ends_the_looks_at_it_and_no_others(installation):
    installation.faults.inject(Fault(function="C_GenerateRandom", hangs=True))
    installation.settings["JOSE_HSM_GENERATION_SECONDS"] = "1"
    report = installation.examine()
    assert report.failed == ["random"]
    assert report.steps["random"]["symptom"] == "hangs"
    assert report.results("proof", "keys") == {"skipped"}
    assert report.results("registry", "clock") == {"ok"}


def test_what_a_token_refuses_its_canary_is_named_with_the_function(installation):
    functions = ("C_GenerateKey", "C_GenerateKeyPair")
    installation.faults.inject(
        *(Fault(function=name, value=FUNCTION_NOT_SUPPORTED) for name in functions)
    )
    report = installation.examine("--quick")
    assert_fails_at(report, "canary", "a pair on P-256")
    assert report.steps["canary"]["symptom"] == "unable"
    assert "FunctionNotSupported to C_GenerateKey" in report.steps["canary"]["seen"]


@pytest.mark.long
def test_a_token_that_takes_no_keys_is_proven_by_round_trips(installation):
    installation.faults.inject(Fault(function="C_CreateObject", value=TEMPLATE_INCONSISTENT))
    report = installation.examine("--quick")
    step = report.steps["algorithm RS256"]
    assert (step["result"], step["symptom"]) == ("ok", "not_imported")
    assert "not provable by import" in step["seen"]
    assert report.results("algorithm ECDH-ES") == {"warning"}  # what is agreed on is imported


@pytest.mark.long
def test_another_answer_than_the_known_one_is_a_failure(installation):
    spoil = """
import hsm.examination.known_answers as known
(example,) = known.examples()["RS256"]
example.octets["answer"] = example.octets["answer"][::-1]
"""
    report = installation.examine("--quick", before=spoil)
    assert report.status == 1
    assert report.failed == ["algorithm RS256"]
    assert "ask the token's vendor" in report.steps["algorithm RS256"]["advice"]
