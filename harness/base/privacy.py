"""What must never reach the record or the screen: credentials, the home folder's owner."""

from __future__ import annotations

import re

# Up to the last @ of a word: a password may hold one, or a slash, against the rules for addresses.
_URL_CREDENTIALS = re.compile(r"(?<=://)\S{0,1000}@")
# As a flag with its value, in Python, JSON, YAML or a shell. What stands before the telling word is
# left to itself and no length is open: a search from each letter of a long word would take hours.
_SECRET_ASSIGNMENT = re.compile(
    r"(?i)((?:password|passwd|secret|token|api[_-]?key|credential)[\w-]{0,60}[\"']?"
    r"(?:[ \t]*[=:]+[ \t]*|[ \t]+))(?:\"[^\"\n]*\"|'[^'\n]*'|\S+)"
)


def mask(text: str) -> str:
    """The text with user names and passwords of URLs and values of secrets replaced by `***`.

    >>> mask("postgresql://ann:pw@db.example/runs --api-key=abc")
    'postgresql://***@db.example/runs --api-key=***'
    """
    return _SECRET_ASSIGNMENT.sub(r"\1***", _URL_CREDENTIALS.sub("***@", text))
