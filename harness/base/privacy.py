"""What must never reach the record or the screen: passwords, tokens and the like."""

from __future__ import annotations

import re

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

    >>> mask("postgresql://ann:pw@db.example/runs --api-key=abc")
    'postgresql://***@db.example/runs --api-key=***'
    """
    return _SECRET_ASSIGNMENT.sub(r"\1***", _URL_CREDENTIALS.sub("***@", text))
