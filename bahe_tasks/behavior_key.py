"""The one rule that turns a text into the key of an atomic behavior.

The same text must get the same key wherever it is met: in the Spark job, in the encoder, when a pair is scored.
So there is one Python function; Spark calls this very function.

Unusual: white space is folded, but invisible control characters are dropped *before* Unicode composition, so that
the rule is idempotent (a control character between a letter and its accent cannot keep the two apart).
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

CANONICALISATION_RULE = "canonical-text/1"
"""Name of the rule below. It is part of encoder_version: change the rule, change the name."""

KEY_DIGITS = 64

_CONTROLS_AND_SURROGATES = (*range(0xA0), *range(0xD800, 0xE000))
_DROPPED = dict.fromkeys(
    c for c in _CONTROLS_AND_SURROGATES if unicodedata.category(chr(c)) in ("Cc", "Cs") and not chr(c).isspace()
)


def canonical_text(text: str | None) -> str:
    """Return `text` in its canonical form: NFC, no control characters, single spaces, stripped, case kept.

    Tabs, line breaks and every other Unicode white space count as white space, not as control characters.
    Lone surrogates, which UTF-8 cannot express, are dropped as control characters are. `None` becomes "".
    """
    if not text:
        return ""
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFC", text.translate(_DROPPED))
    return " ".join(text.split())


def behavior_key(text: str | None) -> str | None:
    """Return the sha256 (64 hex digits) of the canonical text, or `None` when nothing is left of it."""
    canonical = canonical_text(text)
    return keys_of_canonical([canonical.encode()]).decode() if canonical else None


def keys_of_canonical(texts: Iterable[bytes]) -> bytes:
    """Return the keys of texts in canonical form, in UTF-8 and not empty: KEY_DIGITS each, one behind the other."""
    return b"".join([hashlib.sha256(text).digest() for text in texts]).hex().encode()
