"""The doctor's checks of data, tokenizer, search tool, tokens, rollout and cluster."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from calibadv.cluster.nodes import Node, about_here, paths_of
from calibadv.config import load_config
from calibadv.doctor import cluster, data, format_check, retriever, rollout, tokenizer, tokens
from calibadv.doctor.checks import settings
from calibadv.doctor.examine import Check, examine
from calibadv.doctor.finding import Finding, State
from calibadv.doctor.subject import Subject
from calibadv.model_source import ModelFolder
from calibadv.pocket import policy_path
from calibadv.pocket.tokenizer import build_tokenizer
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.search.settings import SearchConfig
from calibadv.tags import PRE_THINK
from tests.build import configured, group, jsonl, overrides_of, trajectory
from tests.rollout.engine_suite import save_tiny_model
from tests.rollout.test_tags_dialogue import byte_tokenizer
from tests.training.untaught import untaught
from workflows.shipped import RECIPES

PASS, WARN, FAIL = State.PASS, State.WARN, State.FAIL
SECRET = "s3cr3t-of-this-test"
QUESTION = {"id": "q1", "question": "Where was Ada born?", "golden_answers": ["Oslo"]}
PASSAGES = [
    {"id": "d1", "title": "Ada", "text": "Ada was born in Oslo."},
    {"id": "d2", "title": "Oslo", "text": "Oslo is a town in Norway."},
]


def subject(folder: Path, *overrides: str, deep: bool = False) -> Subject:
    """A recipe over small files of its own, with the pocket policy and BM25."""
    files = {
        "data.train": str(jsonl(folder / "train.jsonl", QUESTION)),
        "data.test": str(jsonl(folder / "test.jsonl", {**QUESTION, "question": "Who was born in Oslo?"})),
        "data.corpus": str(jsonl(folder / "corpus.jsonl", *PASSAGES)),
        "run.folder": str(folder / "runs"),
        "run.cache": str(folder / "cache"),
        "search.retriever": "bm25",
        "search.reranker": "none",
    }
    given = [f"--{key}={value}" for key, value in files.items()]
    return Subject(load_config(RECIPES / "pocket.toml", overrides_of(*given, *overrides)), deep)


def looked(look: Any, given: Subject) -> list[Finding]:
    return list(examine([Check("check", look)], given))


# ---- settings ----------------------------------------------------------------------------------------------------


def test_what_is_known_to_go_wrong_with_the_settings_is_a_warning_each(tmp_path: Path) -> None:
    given = subject(tmp_path, "--rollout.top_p=0.95", "--learner.surrogate=gspo")
    found = looked(settings, given)
    assert [(finding.name, finding.state) for finding in found] == [("top_p", WARN), ("clip", WARN)]
    assert looked(settings, subject(tmp_path)) == []


# ---- data --------------------------------------------------------------------------------------------------------


def test_data_that_can_be_read_passes(tmp_path: Path) -> None:
    findings = looked(data.data, subject(tmp_path))
    assert [(finding.name, finding.state) for finding in findings] == [
        ("train questions", PASS),
        ("test questions", PASS),
        ("corpus", PASS),
    ]
    assert findings[0].said == "the first 1 of train.jsonl can be read, 0 with gold passages"


def test_data_that_cannot_be_read_fails_with_its_place(tmp_path: Path) -> None:
    given = subject(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"id": "q1"')
    (tmp_path / "corpus.jsonl").unlink()
    train, test, corpus = looked(data.data, given)
    assert (train.state, "train.jsonl, line 1" in train.said) == (FAIL, True)
    assert test.state is PASS
    assert (corpus.state, "no such file" in corpus.said) == (FAIL, True)


def test_a_corpus_is_not_needed_where_a_server_is_asked(tmp_path: Path) -> None:
    given = subject(tmp_path, "--search.url=http://127.0.0.1:1/retrieve")
    (tmp_path / "corpus.jsonl").unlink()
    assert [finding.state for finding in looked(data.data, given)] == [PASS, PASS, PASS]


# ---- tokenizer ---------------------------------------------------------------------------------------------------


def dialogue(**changes: Any) -> TagsDialogue:
    """The pocket tokenizer, or a byte tokenizer with another template or normalizer."""
    tokenizer = byte_tokenizer() if changes else build_tokenizer()
    if "template" in changes:
        tokenizer.chat_template = changes["template"]
    if "normalizer" in changes:
        tokenizer.backend_tokenizer.normalizer = changes["normalizer"]
    if "bos_token" in changes:
        tokenizer.bos_token = changes["bos_token"]
    return TagsDialogue(tokenizer, PRE_THINK)


def test_the_pocket_policys_tokenizer_passes_everything(tmp_path: Path) -> None:
    findings = looked(tokenizer.tokenizer, subject(tmp_path))
    assert {finding.name: finding.state for finding in findings} == dict.fromkeys(
        (
            "chat template",
            "beginning of sequence",
            "pieces",
            "tags",
            "hostile text",
            "end of turn",
            "vocabulary",
            "length",
            "prompts",
        ),
        PASS,
    )


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
OPENED = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


THINKING = OPENED.replace("assistant\n", "assistant\n<think>\n")


@pytest.mark.parametrize(
    ("template", "prefill", "state", "said"),
    [
        (CHATML + OPENED, PRE_THINK, PASS, "'<|im_start|>assistant\\n', then '<think>'"),
        (CHATML + THINKING, PRE_THINK, PASS, "'<|im_start|>assistant\\n<think>\\n'"),
        (CHATML + OPENED + "{{ strftime_now('') }}", PRE_THINK, PASS, "then '<think>'"),
        ("{{ strftime_now('%Y') }}" + CHATML + OPENED, "", PASS, "it writes the date, which a run pins"),
        (CHATML, PRE_THINK, WARN, "has no generation prompt"),
        (CHATML + THINKING, "", FAIL, "itself opens a think"),
        ("{{ add_generation_prompt }}" + CHATML, "", WARN, "changes what stands before"),
        ("{{ raise_exception('no') }}", "", FAIL, "cannot write a user's message (no)"),
    ],
)
def test_the_chat_template_is_examined(template: str, prefill: str, state: State, said: str) -> None:
    (finding,) = tokenizer.chat_template(replace(dialogue(template=template), prefill=prefill))
    assert (finding.state, said in finding.said) == (state, True), finding


@pytest.mark.parametrize(
    ("template", "state"),
    [
        ("{{ bos_token }}" + CHATML + OPENED, PASS),
        (CHATML + OPENED, PASS),
        ("{{ bos_token }}{{ bos_token }}" + CHATML + OPENED, FAIL),
        (CHATML + "{{ bos_token }}" + OPENED, FAIL),
    ],
)
def test_beginning_of_sequence_stands_once_and_in_front(template: str, state: State) -> None:
    assert tokenizer.beginning(dialogue(template=template, bos_token="[INST]")).state is state


def test_a_template_without_the_beginning_that_the_tokenizer_writes_is_warned_of() -> None:
    from tokenizers.processors import TemplateProcessing

    given = dialogue(template=CHATML + OPENED, bos_token="[INST]")
    number = given.tokenizer.convert_tokens_to_ids("[INST]")
    given.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[INST] $A", special_tokens=[("[INST]", number)]
    )
    assert tokenizer.beginning(given).state is WARN


def test_pieces_that_read_otherwise_are_warned_of_and_lost_tags_fail() -> None:
    assert tokenizer.pieces(dialogue(template=CHATML + OPENED)).state is PASS
    stripping = dialogue(normalizer=normalizers.Strip())
    assert tokenizer.pieces(stripping).state is WARN  # the observation's leading line breaks
    losing = dialogue(normalizer=normalizers.Replace("</information>", "(information)"))
    assert tokenizer.pieces(losing).state is FAIL
    assert tokenizer.tags(losing).state is FAIL


def test_a_tokenizer_that_makes_tags_of_lookalikes_fails() -> None:
    assert tokenizer.lookalikes(dialogue(template=CHATML + OPENED)).state is PASS
    finding = tokenizer.lookalikes(dialogue(normalizer=normalizers.NFKC()))
    assert (finding.state, "a document could end its own block" in finding.said) == (FAIL, True)
    invisible = dialogue(normalizer=normalizers.Replace("\u200b", ""))
    assert tokenizer.lookalikes(invisible).state is FAIL


@pytest.mark.parametrize(
    ("template", "ends", "state"),
    [
        (CHATML + OPENED, {"<|im_end|>"}, PASS),
        (CHATML + OPENED, {"[INST]"}, WARN),
        (CHATML.replace("<|im_end|>\n", ""), {"<|im_end|>"}, WARN),
        (CHATML + OPENED, set(), FAIL),
    ],
)
def test_the_end_of_a_message_should_end_a_generation(template: str, ends: set[str], state: State) -> None:
    given = dialogue(template=template)
    ids = {given.tokenizer.convert_tokens_to_ids(token) for token in ends}
    assert tokenizer.end_of_turn(given, ids).state is state


def test_ends_are_those_of_tokenizer_and_both_configurations(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"eos_token_id": 5}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [6, 7]}')
    given = dialogue(template=CHATML)
    assert tokenizer.ends_of(given, tmp_path) == {5, 6, 7, given.tokenizer.eos_token_id}


def test_ids_need_rows_and_rollouts_room() -> None:
    given = dialogue(template=CHATML)
    largest = max(given.tokenizer.get_vocab().values())
    assert tokenizer.vocabulary(given, {"vocab_size": largest + 1}).state is PASS
    assert tokenizer.vocabulary(given, {"vocab_size": largest}).state is FAIL
    assert tokenizer.vocabulary(given, {}).state is WARN
    assert tokenizer.length(2048, {"max_position_embeddings": 2048}).state is PASS
    assert tokenizer.length(2049, {"max_position_embeddings": 2048}).state is FAIL
    assert tokenizer.length(2049, {}).state is PASS


def test_the_longest_prompt_is_held_to_the_budget() -> None:
    given = TagsDialogue(byte_tokenizer(), template="{question}")
    length = len(given.prompt_ids("abc"))
    assert tokenizer.prompts(given, ["a", "abc"], length).state is PASS
    assert tokenizer.prompts(given, ["abc", "a"], length - 1).state is FAIL


# ---- the search tool ---------------------------------------------------------------------------------------------


def test_a_pipeline_over_the_first_passages_is_asked_a_real_question(tmp_path: Path) -> None:
    (finding,) = looked(retriever.retriever, subject(tmp_path))
    assert finding.state is PASS
    assert "bm25, reranker none, over 2 passages: 2 documents ('Ada', 'Oslo')" in finding.said
    assert not (tmp_path / "cache").exists()


def server(monkeypatch: pytest.MonkeyPatch, reply: Any) -> None:
    """Answers every request to a search server with `reply`."""
    import httpx

    transport = httpx.MockTransport(lambda _: httpx.Response(200 if reply else 503, json=reply))
    client = httpx.AsyncClient
    monkeypatch.setattr(httpx, "AsyncClient", lambda **given: client(**{**given, "transport": transport}))


@pytest.mark.parametrize(
    ("reply", "state", "said"),
    [
        ({"result": [[{"id": "d", "title": "Oslo", "text": "x"}]]}, PASS, "the server gave 1 documents ('Oslo')"),
        ({"result": [[]]}, FAIL, "no document for a question"),
        ({"results": []}, FAIL, "is this the URL of a retrieval server?"),
        (None, FAIL, "answered 503"),
    ],
)
def test_a_search_server_is_asked_as_rollouts_ask_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: Any, state: State, said: str
) -> None:
    server(monkeypatch, reply)
    (finding,) = looked(retriever.retriever, subject(tmp_path, "--search.url=http://127.0.0.1:1/retrieve"))
    assert (finding.state, said in finding.said) == (state, True), finding


def test_what_is_not_here_is_said_and_not_tried() -> None:
    config = SearchConfig(encoder="intfloat/not-here", retriever="dense", reranker="none", device="cuda:0")
    assert retriever.lacks(config) == "the model intfloat/not-here, which the run will fetch, the device cuda:0"
    assert retriever.lacks(SearchConfig(retriever="bm25", reranker="none")) == ""
    finding = retriever.of_pipeline(config, [], "?")
    assert (finding.state, finding.said.startswith("not tried: the model")) == (WARN, True)


# ---- tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "state"),
    [
        ("http://127.0.0.1:8000/retrieve", PASS),
        ("http://localhost:8000/retrieve", PASS),
        ("http://[::1]:8000/retrieve", PASS),
        ("https://search.example/retrieve", PASS),
        ("http://search.example/retrieve", WARN),
        ("http://10.0.0.7:8000/retrieve", WARN),
        ("postgresql://db.example/wiki", WARN),
        ("postgresql://db.example/wiki?sslmode=verify-full", PASS),
        ("postgresql:///wiki?host=/run/postgresql", PASS),
    ],
)
def test_a_token_should_cross_no_network_in_the_clear(url: str, state: State) -> None:
    shape = "pgvector" if url.startswith("postgresql") else "search_r1"
    given = {"search.url": url, "search.url_shape": shape, "search.token_env": "TOKEN_OF_THIS_TEST"}
    (finding,) = tokens.sent_tokens(load_config(None, given))
    assert (finding.name, finding.state) == ("search server token", state)


def test_every_server_s_token_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "search.url": "https://r.example/retrieve",
        "search.url_shape": "json",
        "search.http": {
            "headers": {"x-api-key": "$KEY_OF_THIS_TEST"},
            "parameters": {"q": "{query}"},
            "results": "found",
            "text": "text",
        },
        "tracking.mlflow_uri": "http://m.example:5000",
        "reward.outcome": "judge",
        "reward.judge_url": "http://j.example/v1",
        "reward.judge_model": "m",
    }
    config = load_config(None, given)
    for name in ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "JUDGE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert [(found.name, found.state) for found in tokens.sent_tokens(config)] == [("search server token", PASS)]
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")
    monkeypatch.setenv("JUDGE_API_KEY", "k")
    assert [(found.name, found.state) for found in tokens.sent_tokens(config)] == [
        ("search server token", PASS),
        ("MLflow server token", WARN),
        ("judge of answers token", WARN),
    ]


def test_rays_token_should_be_ours_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    token = tmp_path / "auth_token"
    environment = {"RAY_AUTH_TOKEN_PATH": str(token)}
    assert tokens.ray_token(environment).state is PASS
    token.write_text("t")
    shut = any(not folder.stat().st_mode & 0o011 for folder in token.parents)  # nobody else comes so far
    for rights, state in ((0o644, WARN), (0o640, WARN), (0o600, PASS), (0o400, PASS)):
        token.chmod(rights)
        assert tokens.ray_token(environment).state is (PASS if shut else state)
    assert tokens.ray_token(environment | {"RAY_AUTH_TOKEN": "t"}).state is PASS
    assert tokens.ray_token(environment | {"RAY_AUTH_MODE": "disabled"}).state is FAIL


# ---- the tiny rollout and update ---------------------------------------------------------------------------------

METRICS = {"learner/grad_norm": 0.3, "sync/logprob_diff_mean": 1e-7, "learner/skipped_updates": 0.0}


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, PASS),
        ({"learner/grad_norm": math.nan}, FAIL),
        ({"learner/skipped_updates": 1.0}, FAIL),
        ({"sync/logprob_diff_mean": 0.02}, FAIL),
        ({"learner/grad_norm": 0.0}, WARN),
    ],
)
def test_an_update_is_judged_by_its_gradient_and_by_its_log_probs(changes: dict[str, float], state: State) -> None:
    assert rollout.learned(METRICS | changes).state is state


def test_rollouts_need_tokens_with_finite_log_probs() -> None:
    assert rollout.rolled(group(trajectory(1.0, [3, 2]))).state is PASS
    assert rollout.rolled(group(trajectory(1.0, [3, 2], logprob=math.nan))).state is FAIL


def test_made_up_rewards_alternate_so_that_something_is_learned() -> None:
    given = group(*(trajectory(0.0, [2], format_reward=0.0) for _ in range(3)))
    assert [t.reward for t in rollout.rewarded(given).trajectories] == [1.0, 0.0, 1.0]
    assert [t.format_reward for t in rollout.rewarded(given).trajectories] == [1.0, 1.0, 1.0]


def test_a_trial_is_a_few_tokens_long_and_else_the_recipes_own() -> None:
    config = load_config(RECIPES / "qwen2.5-7b.toml")
    short = rollout.shortened(config)
    assert (short.rollout.max_turns, short.rollout.max_turn_tokens) == (1, 24)
    assert short.rollout.model_copy(update={"max_turns": 4, "max_turn_tokens": 1024}) == config.rollout


def large_model(folder: Path) -> Path:
    """The shape of one, without its weights."""
    about = json.loads((policy_path() / "config.json").read_text("utf-8"))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(about | {"vocab_size": 2_000_000}))
    return folder


def test_a_large_model_is_only_tried_on_demand(tmp_path: Path) -> None:
    model = large_model(tmp_path / "model")
    (finding,) = looked(rollout.rollout, subject(tmp_path, f"--model.path={model}"))
    assert (finding.state, "weights are not here" in finding.said) == (WARN, True)
    (model / "model.safetensors").write_bytes(b"")
    (finding,) = looked(rollout.rollout, subject(tmp_path, f"--model.path={model}"))
    assert (finding.state, "--deep rolls out" in finding.said) == (PASS, True)


def test_a_question_is_rolled_out_and_learned_from(tmp_path: Path) -> None:
    """The whole trial, on a random model of a few thousand parameters with a chat template."""
    model = save_tiny_model(tmp_path / "model")
    fast = PreTrainedTokenizerFast.from_pretrained(model)
    fast.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    fast.save_pretrained(model)
    short = ("--rollout.max_tokens=256", "--rollout.max_prompt_tokens=128", "--rollout.max_observation_tokens=64")
    rolled, learned = looked(rollout.rollout, subject(tmp_path, f"--model.path={model}", *short))
    assert (rolled.name, rolled.state) == ("rollout", PASS)
    assert (learned.name, learned.state) == ("update", PASS), learned


# ---- the share of well-formed rollouts -------------------------------------------------------------------------------


def test_the_pocket_policy_writes_the_format(tmp_path: Path) -> None:
    (finding,) = looked(format_check.well_formed, subject(tmp_path, "--data.test=pocket"))
    assert (finding.name, finding.state) == ("format", PASS), finding
    good = int(finding.said.partition(" of 16 rollouts of test questions are well-formed")[0])
    assert good >= 12


def test_a_policy_that_cannot_write_the_format_is_warned_of_with_the_command_that_teaches_it(tmp_path: Path) -> None:
    given = replace(subject(tmp_path, f"--model.path={untaught(tmp_path)}"), given=("--config", "mine.toml"))
    (finding,) = looked(format_check.well_formed, given)
    assert (finding.state, finding.said.startswith("0 of 1 rollouts of test questions")) == (WARN, True), finding
    assert "warm_start gold --config mine.toml" in finding.remedy
    assert "which train.jsonl has not" in finding.remedy  # no gold sub-queries


def test_a_machine_on_which_a_look_takes_too_long_leaves_it_to_the_run(
    tmp_path: Path,
) -> None:
    (finding,) = looked(partial(format_check.well_formed, patience_s=0.0), subject(tmp_path))
    assert (finding.state, "its first evaluation" in finding.remedy) == (WARN, True)


def test_a_large_model_is_not_asked_without_deep(tmp_path: Path) -> None:
    model = large_model(tmp_path / "model")
    (model / "model.safetensors").write_bytes(b"")
    (finding,) = looked(format_check.well_formed, subject(tmp_path, f"--model.path={model}"))
    assert (finding.name, finding.state, "--deep" in finding.said) == ("format", PASS, True)


# ---- the cluster -------------------------------------------------------------------------------------------------

NODE = Node("10.0.0.1", {"python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0"}, free_gib=10.0)


@pytest.mark.parametrize(("there", "state"), [(8.0, PASS), (7.5, FAIL)])
def test_a_cluster_without_room_for_the_actors_fails(there: float, state: State) -> None:
    assert cluster.enough("CPUs", there, 8.0).state is state


def test_nodes_must_answer_be_alike_and_see_the_files() -> None:
    other = replace(NODE, name="10.0.0.2")
    assert cluster.answered([NODE], []).state is PASS
    assert cluster.answered([NODE], ["10.0.0.2"]).state is FAIL
    assert cluster.alike([NODE, other]).state is PASS
    finding = cluster.alike([NODE, replace(other, versions={**NODE.versions, "torch": "2.12.0"})])
    assert (finding.state, finding.said) == (FAIL, "torch: 10.0.0.1 2.13.0, 10.0.0.2 2.12.0")
    seen = cluster.sees_all([NODE, other], ["/data/qwen", "/data/wiki"])
    assert (seen.state, seen.said) == (PASS, "every node sees /data/qwen, /data/wiki, and has room")
    assert cluster.sees_all([NODE], []).said == "every node needs no file of the recipe, and has room"
    missing = replace(other, missing=("/data/wiki",))
    assert cluster.sees_all([NODE, missing], ["/data/wiki"]).said == "not there: 10.0.0.2: /data/wiki"
    assert cluster.sees_all([replace(NODE, unset=("TOKEN",))], []).state is FAIL
    assert cluster.sees_all([replace(NODE, free_gib=1.0)], []).state is WARN


def test_a_cluster_that_asks_for_no_token_is_warned_of() -> None:
    assert (cluster.guarded(True).state, cluster.guarded(False).state) == (PASS, WARN)


def test_a_node_says_what_it_has_and_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKEN_OF_THIS_TEST", raising=False)
    node = about_here("n", (str(tmp_path), "/nowhere"), str(tmp_path / "cache"), ("TOKEN_OF_THIS_TEST",))
    assert (node.missing, node.unset) == (("/nowhere",), ("TOKEN_OF_THIS_TEST",))
    assert node.versions["ray"] == "2.60.0"
    assert node.free_gib > 0


def test_every_node_must_see_the_files_of_the_recipe_as_the_run_hands_them_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert paths_of(load_config(RECIPES / "pocket.toml")) == ()
    given = ("--data.corpus=/data/wiki", "--model.path=/data/qwen", "--search.faiss_index=/data/e5.index")
    assert paths_of(configured(*given)) == ("/data/qwen", "/data/e5.index", "/data/wiki")
    elsewhere = configured(*given, "--search.url=http://127.0.0.1:1")
    assert "/data/wiki" not in paths_of(elsewhere)
    monkeypatch.chdir(tmp_path)
    paper = load_config(RECIPES / "qwen2.5-7b.toml", overrides_of("--cluster.address=auto"))
    files = (f"{tmp_path}/data/wiki-18.index", f"{tmp_path}/data/wiki-18")
    assert paths_of(paper) == files

    # The driver gives engines and learners the folder of a hub's model in its own cache.
    snapshot = tmp_path / "hub" / "snapshots" / "a1"
    found = Subject(paper, find=lambda *_: ModelFolder(snapshot, whole=True))
    assert paths_of(found.with_model) == (str(snapshot), *files)

    def nowhere(*_: object) -> ModelFolder:
        raise ValueError("no such model")

    assert paths_of(Subject(paper, find=nowhere).with_model) == files
