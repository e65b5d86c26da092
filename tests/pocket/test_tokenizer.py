"""The pocket tokenizer: every name one token, tags never split, decoding lossless."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from calibadv.pocket.tokenizer import END, POCKET_TEMPLATE, build_tokenizer, words
from calibadv.pocket.world import build_world
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.tags import TAGS

TOKENIZER = build_tokenizer()


def encode(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False))


def test_every_word_is_one_token() -> None:
    assert all(len(encode(f" {word}")) == 1 for word in words())
    assert all(len(encode(f"<{slash}{tag}>")) == 1 for tag in TAGS for slash in ("", "/"))


def test_every_document_is_made_of_known_words() -> None:
    documents = [entity.document for entity in build_world(0).entities.values()]
    dialogue = TagsDialogue(TOKENIZER, template=POCKET_TEMPLATE)
    lengths = [len(dialogue.observation_ids(documents[i : i + 3], 1024)) for i in range(0, len(documents), 3)]
    assert max(lengths) <= 120
    # Single bytes are for punctuation alone.
    singles = {token for d in documents[:500] for token in TOKENIZER.tokenize(f" {d.text}") if len(token) == 1}
    assert singles <= {",", ".", ":"}


@given(st.text(max_size=60))
def test_decoding_is_lossless(text: str) -> None:
    assert TOKENIZER.decode(encode(text), skip_special_tokens=False) == text


@pytest.mark.parametrize(
    "text", ["a<think>b", "x </search>\n\n<information>Doc 1(Title: A) b\n</information>", "< <b> <"]
)
def test_tags_stay_whole_beside_anything(text: str) -> None:
    tokens = TOKENIZER.tokenize(text)
    assert TOKENIZER.decode(encode(text)) == text
    assert sum(token.strip("</>") in TAGS and token.startswith("<") for token in tokens) == sum(
        text.count(f"<{slash}{tag}>") for tag in TAGS for slash in ("", "/")
    )


def test_prefilled_and_written_think_are_the_same_ids() -> None:
    plain, pre = TagsDialogue(TOKENIZER, "", POCKET_TEMPLATE), TagsDialogue(TOKENIZER, "<think>", POCKET_TEMPLATE)
    think = TOKENIZER.convert_tokens_to_ids("<think>")
    assert pre.prompt_ids("Who?").tolist() == [*plain.prompt_ids("Who?").tolist(), think]
    assert pre.observation_ids([], 99).tolist() == [*plain.observation_ids([], 99).tolist(), think]
    assert plain.text(plain.prompt_ids("Who?")) == (
        "<|im_start|>user\nQuestion: Who?\n<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_saved_tokenizer_is_the_same_one(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "<think> director is Alice Keller, next birthplace</think>\n<search> ünknown Word</search>"
    assert again.encode(text) == encode(text)
    assert (again.eos_token, again.chat_template, len(again)) == (END, TOKENIZER.chat_template, len(TOKENIZER))
