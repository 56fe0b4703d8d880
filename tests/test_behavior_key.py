"""The golden vectors are sha256 of texts written out by hand; the Spark tests use the same list."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahe_tasks.behavior_key import behavior_key, canonical_text

GOLDEN = [
    ("order takeout", "order takeout"),
    ("  order \t takeout\n", "order takeout"),
    ("Order Takeout", "Order Takeout"),
    ("cafe\u0301", "caf\u00e9"),
    ("e\u0000\u0301", "\u00e9"),
    ("a\u00a0b\u2003c\u3000d", "a b c d"),
    ("a\x07b\x1bc", "abc"),
    ("line\r\nbreak\x0bhere", "line break here"),
    ("\u1100\u1161", "\uac00"),
    ("emoji \U0001f469\u200d\U0001f373 stays", "emoji \U0001f469\u200d\U0001f373 stays"),
    ("", ""),
    (" \t\n\x00", ""),
]


@pytest.mark.parametrize(("text", "canonical"), GOLDEN)
def test_golden_texts_have_their_canonical_form_and_its_sha256(text, canonical):
    assert canonical_text(text) == canonical
    expected = hashlib.sha256(canonical.encode()).hexdigest() if canonical else None
    assert behavior_key(text) == expected


def test_the_key_of_order_takeout_never_changes():
    # printf 'order takeout' | sha256sum
    assert behavior_key("order takeout") == "a51c7de1c5e2e9149e5be4c07c25e4f33c7ce2cd0f2ada82f242d870bbe8c14a"


def test_no_text_has_no_key():
    assert behavior_key(None) is None


@given(st.text())
def test_canonical_text_is_idempotent_and_clean(text):
    once = canonical_text(text)
    assert canonical_text(once) == once
    assert once == once.strip()
    assert "  " not in once
    once.encode("utf-8")


@given(st.text())
def test_surrounding_white_space_never_changes_the_key(text):
    assert behavior_key(f" \n{text}\t ") == behavior_key(text)
