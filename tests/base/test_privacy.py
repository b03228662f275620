"""What must never be shown or recorded: credentials."""

from __future__ import annotations

import pytest
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


@pytest.mark.parametrize(
    ("secret", "what"),
    [
        ('KEY = "AKIAIOSFODNN7EXAMPLE"', "a key of AWS"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "a password"),
        ('token = "ghp_0123456789abcdefghijklmnopqrstuvwxyzAB"', "a token of GitHub"),
        ('hf = "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"', "a token of Hugging Face"),
        ("key: sk-ant-api03-abcdefghijklmnopqrstuvwxyz0123456789", "an API key"),
        ("xoxb-123456789012-1234567890123-abcdefghijklmnopqrstuvwx", "a token of Slack"),
        ("AIzaSyA1234567890abcdefghijklmnopqrstuvw", "a key of Google"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVm", "a JSON Web Token"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "a private key"),
        ('headers = {"Authorization": "Bearer abcdefgh12345678abcdefgh"}', "a bearer token"),
        ('url = "postgresql://ann:hunter2@db.example/runs"', "a password in an address"),
        ("AccountKey=abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGH==", "a key of Azure"),
        ('password = "correct horse"', "a secret"),
        ("db_password: 'hunter22'", "a secret"),
        ('{"api_key": "0123456789abcdef"}', "a secret"),
        ('os.environ["WANDB_API_KEY"] = "0123456789abcdef0123456789abcdef01234567"', "a secret"),
        ('auth_token = "abcdefgh12345678abcdefgh"', "a token"),
        ("export DB_PASSWORD=hunter2secret", "a password"),
        ("+DB_PASS=hunter2secret", "a password"),
    ],
)
def test_known_keys_and_passwords_are_found_wherever_they_stand(secret: str, what: str) -> None:
    assert privacy.secret_in(f"import os\n{secret}\nx = 1\n".encode()) == what
    assert privacy.secret_in(f"import os\r\n{secret}\r\n".encode() + b"\xff\xfe") == what


@pytest.mark.parametrize(
    "harmless",
    [
        f'SHA256 = "{"c59f468a" * 8}"',
        "commit 160dc945f0160dc945f0160dc945f0160dc945f0",
        'pad_token, max_tokens, tokenizer = "[PAD]", 512, "bert-base-uncased"',
        'tokenizer = AutoTokenizer.from_pretrained("bert-base-uncased-2024-01")',
        'password = os.environ["DB_PASS"]',
        'secret = ""',
        "api_key = getpass()",
        'compass = "northwest"',
        'bypass = "not at all"',
        'uri = f"postgresql://{user}:{password}@db.example/runs"',
        "https://example.org/a:b@c",
        "PASSWORD=$SECRET",
        "self.token_embedding = nn.Embedding(5, 5)",
        "bearer bonds were a way of owning them",
    ],
)
def test_digests_names_and_placeholders_are_no_secrets(harmless: str) -> None:
    assert privacy.secret_in(harmless.encode()) == ""


@given(st.text())
def test_a_tag_that_is_named_like_a_secret_has_no_value(value: str) -> None:
    for name in ("api_key", "AWS_SECRET_ACCESS_KEY", "token", "hf-token", "db_password"):
        assert privacy.masked_value(name, value) == "***"


def test_a_key_in_any_text_is_masked() -> None:
    key = "ghp_0123456789abcdefghijklmnopqrstuvwxyzAB"
    assert privacy.mask(f"git failed for {key}") == "git failed for ***"
    assert privacy.masked_value("note", f"uses {key} here") == "uses *** here"
