"""Durations of ISO 8601: which are taken, and how they are written."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Config
from app.duration import LONGEST, read_duration, write_duration
from app.settings import ConfigError

SECOND = timedelta(seconds=1)
TAKEN = {
    "PT1S": SECOND,
    "PT90M": timedelta(minutes=90),
    "P30D": timedelta(days=30),
    "P2W": timedelta(weeks=2),
    "P1W2DT3H4M5S": timedelta(weeks=1, days=2, hours=3, minutes=4, seconds=5),
    "P3650D": LONGEST,
}
REFUSED = (
    *(
        "",
        "P",
        "PT",
        "P1DT",
        "30D",
        "p30d",
        "P30D ",
        "P30D\n",
        "P-1D",
        "P1.5D",
        "P\u0661D",
        "PT1M1H",
    ),
    *("P1Y", "P1M", "PT0S", "P0D", "P3650DT1S", "P99999999W99999999D", "P999999999W"),
)


@pytest.mark.parametrize("text", TAKEN)
def test_a_duration_is_read(text):
    assert read_duration(text) == TAKEN[text]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_none_or_of_no_certain_length_is_refused(text):
    with pytest.raises(ValueError, match="must be like P30D or PT12H, of PT1S to P3650D"):
        read_duration(text)


@given(st.timedeltas(SECOND, LONGEST).map(lambda some: timedelta(seconds=some // SECOND)))
def test_what_is_written_is_read_as_the_same(duration):
    assert read_duration(write_duration(duration)) == duration


def test_the_setting_is_one():
    env = {"JOSE_HSM_PKCS11_MODULE": "x", "JOSE_HSM_TOKEN_LABEL": "x", "JOSE_HSM_PIN": "1"}
    assert Config.from_env(env).destroy_after is None
    assert Config.from_env(env | {"JOSE_HSM_DESTROY_AFTER": "P30D"}).destroy_after == timedelta(30)
    with pytest.raises(ConfigError, match="JOSE_HSM_DESTROY_AFTER must be like P30D"):
        Config.from_env(env | {"JOSE_HSM_DESTROY_AFTER": "P1Y"})
