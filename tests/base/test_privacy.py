"""What must never be shown or recorded: credentials."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.base import privacy

WORDS = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1)
SECRET_NAMES = st.sampled_from(
    [
        "password",
        "PASSWD",
        "client_secret",
        "API_KEY",
        "api-key",
        "apikey",
        "my-token",
        "credential",
    ]
)


@given(user=WORDS, password=WORDS, scheme=st.sampled_from(["http", "postgresql+psycopg2", "s3"]))
def test_the_credentials_of_an_address_are_masked(user: str, password: str, scheme: str) -> None:
    masked = privacy.mask(f"see {scheme}://{user}:{password}@db.example/runs now")
    assert masked == f"see {scheme}://***@db.example/runs now"


@given(
    name=SECRET_NAMES,
    form=st.sampled_from(
        [
            "--{}={}",
            "--{} {}",
            "{}={}",
            "{} = '{}'",
            '{{"{}": "{}"}}',
            "{}: {}",
            "{}:{}",
            "x_{}_y={}",
        ]
    ),
)
def test_the_value_of_a_secret_is_masked(name: str, form: str) -> None:
    masked = privacy.mask(f"before {form.format(name, 'hunter2')}\nafter=1")
    assert "hunter2" not in masked
    assert "***" in masked
    assert masked.startswith("before ")
    assert masked.endswith("\nafter=1")


@given(st.text())
def test_masking_twice_is_masking_once(text: str) -> None:
    masked = privacy.mask(text)
    assert privacy.mask(masked) == masked


@given(st.text(st.characters(codec="ascii", exclude_characters="@:=")))
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    plain = text.lower()
    telling = ("password", "passwd", "secret", "token", "api", "credential")
    assert any(word in plain for word in telling) or privacy.mask(text) == text


def test_a_long_line_is_masked_in_no_time() -> None:
    text = "a" * 10**6 + " --token=abc " + "token" * 10**5
    assert "abc" not in privacy.mask(text)
