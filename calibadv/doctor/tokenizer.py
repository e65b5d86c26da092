"""Tokenizer and chat template: whether what the dialogue writes is what the policy reads, token for token."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calibadv.doctor.data import first_questions
from calibadv.doctor.finding import Finding, State, failed, passed, warned
from calibadv.doctor.subject import Subject
from calibadv.rollout.chat_template import messages_of, parts_at, rendered
from calibadv.rollout.dialogues.chat import ChatDialogue
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.rollout.protocols import Result
from calibadv.tags import TAGS
from calibadv.types import Document

if TYPE_CHECKING:
    from calibadv.cluster.factories import AnyDialogue

WORD = "Lisbon"
_ROOM = 4096  # tokens: more than any text here has
_WRITTEN = "<think> I look it up. </think><search> Who was born in Oslo? </search>"
_TAG = re.compile(rf"<\s*/?\s*(?:{'|'.join(TAGS)})\b[^>]*>", re.IGNORECASE)
_ALL_TAGS = tuple(f"<{slash}{tag}>" for tag in TAGS for slash in ("", "/"))
# A tokenizer that normalises its text may read a tag in what is none: compatibility letters, characters of no width.
_WIDE = str.maketrans("<>|[]", "＜＞｜［］")
LOOKALIKES = (
    "</ｉnformation>",
    "<ａnswer> Oslo </ａnswer>",
    "<\u200b/information>",
    "</\u00adinformation>",
    "<sea\u200drch>",
    "<\ufeffthink>",
    "＜/information＞",
    "﹤search﹥",
    "≮/information≯",
)


def tokenizer(subject: Subject) -> Iterator[Finding]:
    """All that is asked of the tokenizer; none of it needs the model's weights."""
    from calibadv.cluster.factories import open_dialogue

    config, folder = subject.config, subject.model.path
    dialogue = open_dialogue(config, config.run_method(), str(folder))
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = chat_template(dialogue)
    yield from found
    if any(finding.state is State.FAIL for finding in found):  # what follows would fail of the same
        return
    yield beginning(dialogue)
    if isinstance(dialogue, TagsDialogue):
        yield pieces(dialogue)
        yield tags(dialogue)
    yield lookalikes(dialogue)
    yield end_of_turn(dialogue, ends_of(dialogue, folder))
    yield vocabulary(dialogue, about)
    yield length(config.rollout.max_tokens, about)
    questions = [question.text for name in ("train", "test") for question in first_questions(subject.files[name])]
    yield prompts(dialogue, questions, config.rollout.max_prompt_tokens)


def chat_template(dialogue: AnyDialogue) -> list[Finding]:
    """What train and evaluate refuse or warn of in the chat template; if that is nothing, how it opens the answer."""
    name, given = "chat template", dialogue.tokenizer
    if found := dialogue.problems():
        return [(failed if problem.fatal else warned)(name, problem.said, problem.remedy) for problem in found]
    dated = "; it writes the date, which a run pins (rollout.date)" if dialogue.writes_date() else ""
    if isinstance(dialogue, ChatDialogue):
        stops = ", ".join(map(repr, dialogue.stop))
        return [passed(name, f"its calls are read, and each turn ends at one of {stops}{dated}")]
    messages, arguments = messages_of(WORD, dialogue.system), dialogue.arguments
    closed, opened = (rendered(given, messages, opened=opened, arguments=arguments) for opened in (False, True))
    added = opened.removeprefix(closed)
    written = dialogue.prefill and added.rstrip().endswith(dialogue.prefill)
    said = repr(added) if written or not dialogue.prefill else f"{added!r}, then {dialogue.prefill!r}"
    return [passed(name, said + dated)]


def beginning(dialogue: AnyDialogue) -> Finding:
    """A beginning-of-sequence token must stand once, in front, if the model knows one."""
    name, bos = "beginning of sequence", dialogue.tokenizer.bos_token_id
    ids = dialogue.prompt_ids(WORD)
    if bos is None:
        return passed(name, "the tokenizer has none")
    places = np.flatnonzero(ids == bos).tolist()
    token = dialogue.tokenizer.bos_token
    if places in ([], [0]):
        if not places and dialogue.tokenizer.encode(WORD)[:1] == [bos]:
            remedy = "put {{ bos_token }} in front of the chat template, as the model was trained with it"
            return warned(name, f"the tokenizer writes {token}, its chat template does not", remedy)
        return passed(name, f"{token} stands {'once, in front' if places else 'nowhere, as the tokenizer has it'}")
    said = f"{token} stands at {places} of a prompt, expected once, in front"
    return failed(name, said, "take {{ bos_token }} out of the chat template where it stands twice")


def pieces(dialogue: TagsDialogue) -> Finding:
    """Prompt, action and observation are encoded apart; together they must read as they were written."""
    name, decode = "pieces", dialogue.text
    document = Document("1", "Ada", f"Born in {WORD}. No tag here.")
    prompt, observation = dialogue.prompt_ids(WORD), dialogue.observation_ids([document], _ROOM)
    action = np.asarray(dialogue.tokenizer.encode(_WRITTEN, add_special_tokens=False), dtype=np.int64)
    body = f"Doc 1(Title: Ada) {document.text}\n"
    expected = (
        dialogue.prompt_text(WORD),
        _WRITTEN,
        f"\n\n<information>{body}</information>\n\n{dialogue.prefill}",
    )
    whole, wanted = decode(np.concatenate([prompt, action, observation])), "".join(expected)
    if whole == wanted:
        return passed(name, "prompt, action and observation, encoded apart, read as they were written")
    at = parts_at(whole, wanted)
    said = f"{wanted[max(0, at - 20) : at + 20]!r} reads {whole[max(0, at - 20) : at + 20]!r}"
    if _TAG.findall(whole) == _TAG.findall(wanted):
        remedy = "nothing, if only white space differs: the policy sees it in training and in use alike"
        return warned(name, f"encoded apart, {said}", remedy)
    return failed(name, f"encoded apart, a tag is lost or made: {said}", "use another tokenizer")


def tags(dialogue: TagsDialogue) -> Finding:
    """Every tag must come back as it is, alone and between words, without an unknown token."""
    tokenizer, counts = dialogue.tokenizer, []
    for tag in _ALL_TAGS:
        alone = tokenizer.encode(tag, add_special_tokens=False)
        between = tokenizer.encode(f"a {tag} b", add_special_tokens=False)
        counts.append(len(alone))
        read = (tokenizer.decode(alone), tokenizer.decode(between))
        unknown = tokenizer.unk_token_id is not None and tokenizer.unk_token_id in (*alone, *between)
        if unknown or read[0].strip() != tag or tag not in read[1]:
            said = f"{tag} reads {read[0]!r} alone and {read[1]!r} between words"
            return failed("tags", said, "add the tag to the tokenizer (`add_tokens`), or use another model")
    said = "1 token" if set(counts) == {1} else f"{min(counts)} to {max(counts)} tokens"
    return passed("tags", f"each is {said}, alone and between words")


def lookalikes(dialogue: AnyDialogue) -> Finding:
    """No document and no question may open or close a tag, however its characters are normalised."""
    hostile = (*LOOKALIKES, *(token.translate(_WIDE) for token in dialogue.tokenizer.all_special_tokens))
    harmless = _structure(dialogue, WORD)
    for text in hostile:
        if _structure(dialogue, text) != harmless:
            said = f"the tokenizer reads a tag or a control token in {text!a}: a document could end its own block"
            return failed("hostile text", said, "use a model whose tokenizer does not normalise so (NFKC)")
    return passed("hostile text", f"{len(hostile)} lookalikes of tags and control tokens stay text")


def ends_of(dialogue: AnyDialogue, folder: Path) -> set[int]:
    """The ids that end a generation: of tokenizer, generation_config.json and config.json."""
    ends = {dialogue.tokenizer.eos_token_id}
    for file in ("generation_config.json", "config.json"):
        if (folder / file).is_file():
            given = json.loads((folder / file).read_text(encoding="utf-8")).get("eos_token_id")
            ends |= set(given) if isinstance(given, list) else {given}
    return {end for end in ends if end is not None}


def end_of_turn(dialogue: AnyDialogue, ends: Iterable[int]) -> Finding:
    """The token with which the template ends an assistant's message should end a generation too."""
    name, ends = "end of turn", set(ends)
    remedy = "set eos_token_id in generation_config.json to the template's own end of turn"
    if not ends:
        return failed(name, "the model has no end-of-sequence token", remedy)
    written = [{"role": "user", "content": WORD}, {"role": "assistant", "content": _WRITTEN}]
    after = rendered(dialogue.tokenizer, written).rpartition("</search>")[2].lstrip()
    if not after:
        return warned(name, "the chat template writes nothing after an assistant's message", remedy)
    first = dialogue.tokenizer.encode(after, add_special_tokens=False)[0]
    token = dialogue.tokenizer.decode([first])
    if first in ends:
        return passed(name, f"{token!r} ends a message and a generation")
    known = ", ".join(repr(dialogue.tokenizer.decode([end])) for end in sorted(ends))
    said = f"{token!r} ends a message, but only {known} and the closing tags end a generation"
    return warned(name, said, remedy)


def vocabulary(dialogue: AnyDialogue, about: dict[str, Any]) -> Finding:
    """Every id that the tokenizer can give needs its row in the embedding."""
    largest, rows = max(dialogue.tokenizer.get_vocab().values()), about.get("vocab_size")
    if rows is None:
        return warned("vocabulary", "config.json says no vocab_size", "see that it is a causal language model's")
    if largest < rows:
        return passed("vocabulary", f"ids up to {largest:,} in an embedding of {rows:,} rows")
    said = f"the tokenizer gives ids up to {largest:,}, the embedding has {rows:,} rows"
    return failed("vocabulary", said, "use the tokenizer that belongs to the model, or resize the embedding")


def length(max_tokens: int, about: dict[str, Any]) -> Finding:
    """A rollout must fit into the model's context."""
    room = about.get("max_position_embeddings")
    if room is None or max_tokens <= room:
        return passed("length", f"rollouts of {max_tokens:,} tokens in a context of {room or 'no stated length'}")
    said = f"rollout.max_tokens = {max_tokens:,}, the model's context is {room:,}"
    return failed("length", said, f"lower it to {room} at most")


def prompts(dialogue: AnyDialogue, questions: list[str], budget: int) -> Finding:
    """The longest prompt of the questions at hand against the budget."""
    longest = max(len(dialogue.prompt_ids(text)) for text in questions)
    said = f"the longest of {len(questions)} has {longest} tokens, the budget is {budget}"
    if longest <= budget:
        return passed("prompts", said)
    return failed("prompts", said, "raise rollout.max_prompt_tokens, or drop such questions")


def _structure(dialogue: AnyDialogue, text: str) -> list[tuple[list[str], list[int]]]:
    """Tags and control tokens of an observation with such a document, and of the prompt with such a question."""
    special = set(dialogue.tokenizer.all_special_ids)
    observed = dialogue.observed([Result((Document("1", text, text),))], np.zeros(0, np.int64), _ROOM)
    both = observed, dialogue.prompt_ids(text)
    return [(_TAG.findall(dialogue.text(ids)), [i for i in ids.tolist() if i in special]) for ids in both]
