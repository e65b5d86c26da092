"""The pocket tokenizer: byte-level BPE without merges, in which every word of the pocket world is one token.

Any other text falls back to its bytes, so that decoding is lossless.
"""

from __future__ import annotations

import re

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from calibadv.pocket import lexicon
from calibadv.pocket.world import RELATIONS, TEMPLATES
from calibadv.tags import TAGS

END = "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
POCKET_TEMPLATE = "Question: {question}\n"
"""The short prompt that the pocket policy was warm-started on."""

# `Doc 1(Title:` is one token: it opens every document of every observation, and the pocket learner pays by the token.
_PIECES = (
    r"Doc \d\(Title:| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}<]+|<(?!/?(?:think|search|information|answer)>)|\s+(?!\S)|\s+"
)
_FRAMES = (
    "Who Which What is the of are or and Do have same older year find next done check not found may be differ yes no"
)


def words() -> list[str]:
    """Every word that is one token in the middle of a sentence, sorted."""
    names = [
        *lexicon.FIRST_NAMES, *lexicon.SURNAMES, *lexicon.ADJECTIVES, *lexicon.NOUNS, *lexicon.TOWNS, *lexicon.COUNTIES,
        *lexicon.RIVERS, *lexicon.COLLEGES, *lexicon.YEARS, "College", "County", "River",
    ]  # fmt: skip
    text = " ".join([_FRAMES, *TEMPLATES.values(), *(relation for facts in RELATIONS.values() for relation in facts)])
    return sorted({*names, *re.findall(r"[A-Za-z]+", re.sub(r"\{\w+\}", " ", text))})


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the pocket policy; equal at every call."""
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    sentence_words = [f" {word}" for word in words()]
    starts = ["Question", "user", "assistant", "system", "\n\n", *(f"Doc {i}(Title:" for i in range(1, 10))]
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    for text in sentence_words + starts:
        piece = to_bytes.pre_tokenize_str(text)[0][0]
        if piece not in pieces:
            pieces.append(piece)
    # ignore_merges: a piece that is in the vocabulary is that token; only others are split into bytes.
    tokenizer = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"), to_bytes]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", END)])
    tokenizer.add_tokens(
        [AddedToken(f"<{slash}{tag}>", special=False, normalized=False) for tag in TAGS for slash in ("", "/")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
        # transformers 5 ignores the declared class in a folder of model type qwen2 and rebuilds the tokenizer with
        # Qwen's own pre-tokenizer, unless remote code is declared; that code is then skipped as untrusted.
        auto_map={"AutoTokenizer": ["", ""]},
    )
