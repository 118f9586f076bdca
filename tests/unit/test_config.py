"""Settings are read strictly, and what is wrong is said with what to do."""

import os
import socket
import subprocess

import pytest

from app.config import Config
from app.operator.serving import COMMAND
from app.registry import migrate
from app.settings import ConfigError
from scripts.throwaway import ROOT
from tests.shared import waiting

GOOD = {
    "JOSE_HSM_PKCS11_MODULE": "/usr/lib/module.so",
    "JOSE_HSM_TOKEN_LABEL": "label",
    "JOSE_HSM_PIN_FILE": "/run/pin",
}


def without(name: str) -> dict[str, str]:
    return {other: value for other, value in GOOD.items() if other != name}


def test_three_settings_are_enough():
    config = Config.from_env(GOOD)
    assert (config.bind, config.fips, config.cek) == ("127.0.0.1:8000", False, "process")


def test_the_largest_numbers_are_taken():
    most = {"JOSE_HSM_KEYS_PER_OWNER": "1000000000", "JOSE_HSM_JWKS_MAX_AGE": "315360000"}
    config = Config.from_env(GOOD | most)
    assert (config.keys_per_owner, config.jwks_max_age) == (1_000_000_000, 315_360_000.0)


def test_an_empty_setting_is_not_set():
    assert Config.from_env(GOOD | {"JOSE_HSM_TOKEN_SERIAL": "", "JOSE_HSM_FIPS": ""}).fips is False


def test_a_setting_may_be_called_like_a_word_of_python():
    assert Config.from_env(GOOD).import_ == "any"
    assert Config.from_env(GOOD | {"JOSE_HSM_IMPORT": "wrapped"}).import_ == "wrapped"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (GOOD | {"JOSE_HSM_PINFILE": "x"}, "did you mean JOSE_HSM_PIN_FILE?"),
        (GOOD | {"JOSE_HSM_TOKEN_LABLE": "x"}, "did you mean JOSE_HSM_TOKEN_LABEL?"),
        (without("JOSE_HSM_PKCS11_MODULE"), "set JOSE_HSM_PKCS11_MODULE"),
        (without("JOSE_HSM_TOKEN_LABEL"), "set JOSE_HSM_TOKEN_LABEL"),
        (without("JOSE_HSM_PIN_FILE"), "set JOSE_HSM_PIN_FILE"),
        (GOOD | {"JOSE_HSM_PIN": "4711"}, "set JOSE_HSM_PIN_FILE.* JOSE_HSM_PIN, not both"),
        (GOOD | {"JOSE_HSM_TOKEN_URI": "pkcs11:token=x"}, "set JOSE_HSM_TOKEN_LABEL.*, not both"),
        (GOOD | {"JOSE_HSM_FIPS": "yes"}, "JOSE_HSM_FIPS must be 0 or 1"),
        (GOOD | {"JOSE_HSM_SESSIONS": "0"}, "JOSE_HSM_SESSIONS must be a whole number"),
        (GOOD | {"JOSE_HSM_SESSIONS": "10001"}, "JOSE_HSM_SESSIONS must be.* 10000 at most"),
        (GOOD | {"JOSE_HSM_GENERATIONS": "10001"}, "above 0, 10000 at most"),
        (GOOD | {"JOSE_HSM_SESSION_WAIT_SECONDS": "inf"}, "must be a number of seconds"),
        (GOOD | {"JOSE_HSM_SESSION_WAIT_SECONDS": "1e10"}, "seconds above 0, 315360000 at most"),
        (GOOD | {"JOSE_HSM_JWKS_MAX_AGE": "nan"}, "JOSE_HSM_JWKS_MAX_AGE must be a number of"),
        (GOOD | {"JOSE_HSM_KEYS_PER_OWNER": "1000000001"}, "above 0, 1000000000 at most"),
        (GOOD | {"JOSE_HSM_JWKS_KEYS": "9" * 5000}, "above 0, 1000000000 at most"),
        (GOOD | {"JOSE_HSM_CEK": "hsm"}, "must be one of: process, token"),
        (GOOD | {"JOSE_HSM_IMPORT": "none"}, "JOSE_HSM_IMPORT must be one of: any, wrapped"),
        (GOOD | {"JOSE_HSM_AUTH": "password"}, "JOSE_HSM_AUTH must be a comma list of"),
        (GOOD | {"JOSE_HSM_BIND": "0.0.0.0:8000"}, "must be a loopback.* set JOSE_HSM_AUTH"),
        (GOOD | {"JOSE_HSM_BIND": "[::]:8000"}, "must be a loopback address"),
        (GOOD | {"JOSE_HSM_BIND": "example.com:80"}, "must be a loopback address"),
        (GOOD | {"JOSE_HSM_BIND": "127.0.0.1:65536"}, "must be like 127.0.0.1:8000"),
        (GOOD | {"JOSE_HSM_BIND": "127.0.0.1:٨٠"}, "must be like 127.0.0.1:8000"),
        (GOOD | {"JOSE_HSM_BIND": "unix:"}, "must be like 127.0.0.1:8000 or unix:/path"),
        (GOOD | {"JOSE_HSM_BIND": "8000"}, "must be like 127.0.0.1:8000"),
        (GOOD | {"JOSE_HSM_BIND": "::1:8000"}, "must be like 127.0.0.1:8000"),
        (GOOD | {"JOSE_HSM_BIND": "http://127.0.0.1:8000"}, "must be like 127.0.0.1:8000"),
        (GOOD | {"JOSE_HSM_BIND": "127.0.0.1:1,127.0.0.1:2"}, "must be like 127.0.0.1:8000"),
        (GOOD | {"JOSE_HSM_ADMINS": "root"}, "JOSE_HSM_ADMINS must be principals like token:ci"),
        (GOOD | {"JOSE_HSM_ADMINS": "token:a|"}, "must be principals like token:ci"),
        (GOOD | {"JOSE_HSM_AUDITORS": "token:a, jwt:b"}, "with a vertical bar between them"),
        (GOOD | {"JOSE_HSM_BIND": "127.0.0.1"}, "must be like 127.0.0.1:8000"),
        (GOOD | {"JOSE_HSM_PAGES": "0", "JOSE_HSM_ADMIN_PAGE": "1"}, "set JOSE_HSM_PAGES=1"),
        (GOOD | {"JOSE_HSM_OTLP_ENDPOINT": "127.0.0.1:4318"}, "must be an http or https URL"),
        (GOOD | {"JOSE_HSM_OTLP_ENDPOINT": "http://[host"}, "must be an http or https URL"),
        (GOOD | {"JOSE_HSM_OTLP_ENDPOINT": "http://me:4711@host"}, "without a user and a query"),
        (GOOD | {"JOSE_HSM_OTLP_ENDPOINT": "http://host?key=4711"}, "without a user and a query"),
    ],
)
def test_what_is_wrong_is_named(environment, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")) as refused:
        Config.from_env(environment)
    assert "4711" not in str(refused.value)


def test_who_has_a_collector_needs_its_packages(monkeypatch):
    environment = GOOD | {"JOSE_HSM_OTLP_ENDPOINT": "https://collector.example:4318"}
    assert Config.from_env(environment).otlp_endpoint == "https://collector.example:4318"
    monkeypatch.setattr("app.settings._EXPORTER", "opentelemetry.none.at.all")
    with pytest.raises(ConfigError, match=r"needs packages: .* jose-hsm\[otlp\]"):
        Config.from_env(environment)


@pytest.mark.parametrize("bind", ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/run/socket"])
def test_what_only_this_machine_reaches_is_served(bind):
    assert Config.from_env(GOOD | {"JOSE_HSM_BIND": bind}).bind == bind


def test_a_token_may_be_named_by_uri():
    uri = {"JOSE_HSM_TOKEN_URI": "pkcs11:token=my%20token;serial=0123"}
    settings = Config.from_env(without("JOSE_HSM_TOKEN_LABEL") | uri).hsm_settings
    assert (settings.token_label, settings.token_serial) == ("my token", "0123")


@pytest.mark.parametrize(
    "uri",
    ["token=x", "pkcs11:object=x", "https://x", "pkcs11:token=", "pkcs11:token=x?pin-value=4711"],
)
def test_a_uri_that_names_no_token_is_refused(uri):
    with pytest.raises(ConfigError, match="JOSE_HSM_TOKEN_URI must be like") as refused:
        Config.from_env(without("JOSE_HSM_TOKEN_LABEL") | {"JOSE_HSM_TOKEN_URI": uri})
    assert "4711" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql//user:s3cret@host/db",
        "postgresql+psycopg://user:p@ss:s3cret@host/db",
        "postgresql+psycopg://user:p@s3cret@host/db",
        "postgresql+psycopg://user:p@host:s3cret/db",
    ],
)
def test_a_mistyped_database_url_is_not_repeated(url):
    with pytest.raises(ConfigError) as refused:
        migrate(url)
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_what_a_database_url_must_be_is_said():
    with pytest.raises(ConfigError, match=r"JOSE_HSM_DATABASE_URL must be .*, like postgresql\+"):
        migrate("registry.db")


def test_gunicorn_cannot_be_made_to_serve_others_by_its_own_option(environment):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = subprocess.run(
        [*COMMAND, "--bind", f"0.0.0.0:{port}"],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=waiting.COMMAND.seconds,
    )
    assert done.returncode != 0
    assert "without authentication only loopback addresses are served" in done.stderr
