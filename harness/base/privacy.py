"""What must never reach the record or the screen: passwords, tokens and the like."""

from __future__ import annotations

import re

_KEY_FORMATS = {
    "a private key": r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY",
    "a key of AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of GitHub": r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{40})",
    "a token of GitLab": r"\bgl(?:pat|rt|dt)-[\w-]{20}",
    "a token of Hugging Face": r"\bhf_[A-Za-z0-9]{30}",
    "an API key": r"\bsk-[\w-]{32}|\b(?:gsk|pplx|r8|dop_v1|dckr_pat|shpat|lin_api)[_-]\w{20}",
    "a key of Google": r"\bAIza[\w-]{35}|\bya29\.[\w-]{20}|\bGOCSPX-[\w-]{20}",
    "a token of Slack": r"\bxox[abeoprs]-[\w-]{10}|hooks\.slack\.com/services/T\w+/B\w+/\w{10}",
    "a key of Stripe": r"\b[rs]k_(?:live|test)_\w{16}",
    "a token of npm": r"\bnpm_[A-Za-z0-9]{36}",
    "a token of PyPI": r"\bpypi-AgE[\w-]{20}",
    "a key of SendGrid": r"\bSG\.[\w-]{20,24}\.[\w-]{30}",
    "a token of Databricks": r"\bdapi[0-9a-f]{32}\b",
    "a JSON Web Token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10}",
    "a bearer token": r"\b[Bb]earer[ \t]+(?=[A-Za-z._~+/-]{0,60}[0-9])[\w.~+/-]{16}",
    "a key of Azure": r"\b(?:Account|SharedAccess)Key=[\w+/]{40}",
    "a password in an address": r"://[^\s/@:\"'<>{}$*]{1,100}:[^\s/@\"'<>{}$*]{1,100}@",
}
"""Formats by which services and tools make their keys known."""

_NAME = (
    r"(?:(?<![a-z])pass|pass(?:word|wd|phrase)|pwd|secret"
    r"|api_?key|access_?key|auth_?key|credentials?)"
)
"""The end of a name whose value is a secret."""

_ASSIGNED = {
    # DB_PASS=hunter2secret, a line of an .env file or a shell
    "a password": rf"(?im)^[ +-]?(?:export[ \t]+)?[\w.-]{{0,60}}{_NAME}=(?![\"'$({{])\S{{6,}}",
    # password = "..." in Python, JSON or YAML; token has other meanings, so it must look like one
    "a secret": rf"(?i)\b[\w.-]{{0,60}}{_NAME}[\"']?\]?[ \t]*(?:=|:|:=)[ \t]*"
    r"[\"'][^\"'\n{}$]{6,}[\"']",
    "a token": r"(?i)\b\w{0,60}token[\"']?\]?[ \t]*[=:][ \t]*[\"']"
    r"(?=[^\"']{0,200}[0-9])(?=[^\"']{0,200}[A-Za-z])[\w.~+/=-]{16,}[\"']",
}

_SECRETS = {name: re.compile(pattern) for name, pattern in (_KEY_FORMATS | _ASSIGNED).items()}

_ANY_KEY = re.compile("|".join(f"(?:{pattern})\\S*" for pattern in _KEY_FORMATS.values()))

_SECRET_NAME = re.compile(rf"(?i){_NAME}$|token$|^pat$|^auth$|bearer|private_?key")

# Up to the last @ of a word: some passwords contain one, or a slash, although URLs forbid it.
_URL_CREDENTIALS = re.compile(r"(?<=://)\S{0,1000}@")
# As a flag with its value, in Python, JSON, YAML or a shell. The pattern begins with the keyword
# and bounds every repetition: otherwise a long word would take hours.
_SECRET_ASSIGNMENT = re.compile(
    r"(?i)((?:password|passwd|secret|token|api[_-]?key|credential)[\w-]{0,60}[\"']?"
    r"(?:[ \t]*[=:]+[ \t]*|[ \t]+))(?:\"[^\"\n]*\"|'[^'\n]*'|\S+)"
)


def mask(text: str) -> str:
    """Return the text with the credentials of URLs and the values of secrets replaced by `***`.

    >>> mask("postgresql://" "ann:pw@db.example/runs --api-key=abc")
    'postgresql://***@db.example/runs --api-key=***'
    """
    text = _SECRET_ASSIGNMENT.sub(r"\1***", _URL_CREDENTIALS.sub("***@", text))
    return _ANY_KEY.sub("***", text)


def masked_value(name: str, value: str) -> str:
    """Return the value as it may be recorded under a name.

    >>> masked_value("api_key", "X"), masked_value("note", "a token of love")
    ('***', 'a token of love')
    """
    if _SECRET_NAME.search(name):
        return "***"
    return _ANY_KEY.sub("***", _URL_CREDENTIALS.sub("***@", value))


def secret_in(content: bytes) -> str:
    """What looks like a secret in a file or a patch, in words; "" if nothing does.

    Names and placeholders do not, nor do digests in hexadecimal.

    >>> secret_in(b"AWS_ACCESS_KEY_ID=AKIA" + b"IOSFODNN7EXAMPLE")
    'a key of AWS'
    """
    text = content.decode(errors="replace")
    return next((name for name, pattern in _SECRETS.items() if pattern.search(text)), "")
