"""The canonical texts and keys of a column are those of the one Python rule, by Arrow."""

from __future__ import annotations

import re
import unicodedata
from random import Random

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bahe_tasks import behavior_key as rule
from spark_jobs.landed.canonical_texts import PLAIN_CHARACTERS, behavior_keys, canonical_texts

GOLDEN = ["order takeout", "  order \t takeout\n", "Café", "Cafe\u0301", "a\u0000b", "a\u200bb", "\u00a0x\u2003y\u0085z", "日本語  テキスト",
          "e\u0001\u0301", "\u1100\u1161\u11a8", "각\u11a8", "Й и\u0306", "\u2126 \u212b", "", "   ", "\u0001\u0002", "👩‍👩‍👧 emoji", "\x1c\x1f", "ﬁ", "a\r\nb",
          "\u0958", "x" * 5000, "~ !", "ends\n", "ends\r\n", "ends\u2028", "ends\u0085", "\u0344", "ạ̈", "ạ̈"]  # fmt: skip


def keys_and_texts(texts):
    """Canonical texts with their keys, `None` where nothing is left of a text."""
    canonical = canonical_texts(pa.array(texts, pa.string()))
    keys = iter(behavior_keys(canonical.filter(pc.greater(pc.utf8_length(canonical), 0))).to_pylist())
    return [(text, next(keys) if text else None) for text in canonical.to_pylist()]


def test_golden_vectors_have_the_keys_of_the_python_rule():
    assert keys_and_texts(GOLDEN) == [(rule.canonical_text(t), rule.behavior_key(t)) for t in GOLDEN]


def test_a_missing_text_stays_missing():
    assert keys_and_texts(["a", None])[1] == (None, None)


def test_keys_of_part_of_a_column_are_those_of_its_texts():
    texts = pa.array(["a", "b", "c", "d"]).slice(1, 2)
    assert behavior_keys(texts).to_pylist() == [rule.behavior_key("b"), rule.behavior_key("c")]


@settings(max_examples=20, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_random_unicode_has_the_keys_of_the_python_rule(seed):
    random = Random(seed)
    tricky = " \t\u0301\u00e9ae\u0300가\u11a8Ω"
    # A lone surrogate cannot be written in UTF-8 and so never gets here.
    ranges = [(0, 0x300), (0, 0xD800), (0xE000, 0x110000)]
    draw = [lambda: random.choice(tricky), lambda: chr(random.randrange(*random.choice(ranges)))]
    texts = ["".join(random.choice(draw)() for _ in range(random.randrange(8))) for _ in range(600)]
    assert keys_and_texts(texts) == [(rule.canonical_text(t), rule.behavior_key(t)) for t in texts]


def test_no_plain_character_can_be_dropped_composed_or_taken_for_a_space():
    plain = [c for c in map(chr, range(0x110000)) if re.fullmatch(f"[{PLAIN_CHARACTERS}]", c)]
    assert len(plain) > 38_000  # Han and Hangul alone are 38,740
    for c in plain:
        assert unicodedata.category(c) not in ("Cc", "Cs")
        assert c == " " or not c.isspace()
        assert unicodedata.normalize("NFC", c) == c
        assert unicodedata.combining(c) == 0
    # Nothing plain is the second half of a composition: no decomposition of any character ends in one.
    seconds = {
        chr(int(parts[1], 16))
        for c in map(chr, range(0x110000))
        if len(parts := unicodedata.decomposition(c).split()) == 2 and "<" not in parts[0]
    }
    assert not seconds & set(plain)
