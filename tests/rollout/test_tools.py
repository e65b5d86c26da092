"""Tools of the user's: what a policy is told of them, and whose fault it is when one gives nothing."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field
from ray import cloudpickle

from calibadv.config import ConfigError, load_config
from calibadv.rollout import tools
from calibadv.rollout.protocols import ToolFailed
from calibadv.rollout.tools import Tool, ToolConfig, make_tools
from calibadv.user_code import hand_in
from tests.extend_page import examples


def calculate(expression: str, digits: Annotated[int, Field(ge=0)] = 2) -> str:
    """Gives the value of an arithmetic expression."""
    return f"{float(expression):.{digits}f}"


def no_type(x) -> str:  # type: ignore[no-untyped-def]
    """Says nothing of x."""
    return str(x)


def no_words(x: int) -> int:
    return x


def any_number(*numbers: int) -> int:
    """Takes what has no name."""
    return sum(numbers)


def unspeakable(x: ToolFailed) -> str:
    """Takes what JSON cannot hold."""
    return str(x)


def tool(function: Any, **settings: Any) -> Tool:
    (made,) = make_tools([ToolConfig(function=hand_in(function), **settings)])
    return made


def test_a_schema_is_made_of_type_hints_and_docstring() -> None:
    assert tool(calculate).schema == {
        "type": "function",
        "function": {
            "name": "calculate",
            "description": "Gives the value of an arithmetic expression.",
            "parameters": {
                "type": "object",
                "properties": {"expression": {"type": "string"}, "digits": {"type": "integer", "minimum": 0}},
                "required": ["expression"],
            },
        },
    }
    assert tool(calculate, name="sum-up").schema["function"]["name"] == "sum-up"


async def test_results_are_text() -> None:
    async def find(kind: Literal["a", "b"]) -> dict[str, Any]:
        """Finds."""
        return {"kind": kind, "ä": [1, None]}

    assert (await tool(calculate)({"expression": "1.256"})).text == "1.26"
    assert (await tool(calculate)({"expression": "1.256", "digits": 0})).text == "1"
    assert (await tool(find, max_tokens=9)({"kind": "a"})) == tools.Result(
        text='{"kind": "a", "ä": [1, null]}', max_tokens=9
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "Error: calculate: expression: Field required"),
        ({"expression": "1", "x": 2}, "Error: calculate: x: Extra inputs are not permitted"),
        ({"expression": "1", "digits": -1}, "Error: calculate: digits: Input should be greater than or equal to 0"),
    ],
)
async def test_wrong_arguments_are_the_policys_fault_and_never_reach_the_function(
    arguments: dict[str, Any], said: str
) -> None:
    assert (await tool(calculate, retries=0)(arguments)).text == said


async def test_what_a_function_raises_is_tried_again_and_then_the_environments_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = 0

    def flaky(x: int) -> int:
        """Answers at the third call."""
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ConnectionError("gone")
        return x

    assert (await tool(flaky, retries=2)({"x": 5})).text == "5"
    calls = 0
    with pytest.raises(ToolFailed, match="tool flaky: ConnectionError: gone"):
        await tool(flaky, retries=1)({"x": 5})
    assert "the rollout is given up" in caplog.text


async def test_half_a_character_in_a_result_is_a_question_mark() -> None:
    def half(x: str) -> list[str]:
        """Gives half a pair."""
        return [x, "\ud83d"]

    assert (await tool(half)({"x": "é"})).text == '["é", "?"]'


async def test_a_function_that_exits_ends_its_rollout_alone() -> None:
    def leaves(x: int) -> int:
        """Ends."""
        sys.exit(x)

    with pytest.raises(ToolFailed, match=r"it raised SystemExit\(5\)"):
        await asyncio.wait_for(tool(leaves, retries=0)({"x": 5}), 5)


async def test_a_function_that_hangs_is_given_up() -> None:
    async def hang(x: int) -> int:
        """Never answers."""
        await asyncio.sleep(3600)
        return x

    with pytest.raises(ToolFailed, match="tool hang: TimeoutError"):
        await tool(hang, retries=0, timeout_s=0.01)({"x": 5})


async def test_as_many_calls_as_are_made_at_once_run_at_once() -> None:
    barrier = threading.Barrier(48, timeout=30)

    def meet(x: int) -> int:
        """Waits for all other calls, which a pool of few threads would not begin."""
        barrier.wait()
        return x

    one = tool(meet, retries=0)
    assert [r.text for r in await asyncio.gather(*(one({"x": x}) for x in range(48)))] == [str(x) for x in range(48)]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (no_type, "its parameter 'x' has no type: write e.g. x: str"),
        (no_words, "has no docstring, which tells the policy what it does"),
        (any_number, "takes what has no name"),
        (unspeakable, "cannot be described to a policy"),
    ],
)
def test_a_function_that_cannot_be_described_is_refused(function: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tool(function)


def test_two_tools_of_one_name_are_refused() -> None:
    twice = [ToolConfig(function=hand_in(calculate))] * 2
    with pytest.raises(ValueError, match="two tools are called 'calculate': give one another name"):
        make_tools(twice)


async def test_a_tool_goes_to_another_process() -> None:
    made = tool(calculate)
    assert made.schema
    assert (await pickle.loads(cloudpickle.dumps(made))({"expression": "2"})).text == "2.00"


def test_settings_that_cannot_be() -> None:
    def refused(**rollout: Any) -> str:
        with pytest.raises(ConfigError) as error:
            load_config(None, {"rollout": rollout})
        return str(error.value)

    one = {"function": "t.py:add"}
    assert "rollout.dialogue = 'tags' has a tag for the search alone: set it to" in refused(tools=[one])
    assert "expected one of function, command and url" in refused(dialogue="hermes", tools=[{"name": "add"}])
    assert "a tool is called 'search'" in refused(dialogue="hermes", tools=[{"function": "t.py:search"}])
    assert "rollout.template_arguments.tools cannot be set" in refused(template_arguments={"tools": []})
    assert "did you mean 'rollout.tools'" in str(_unknown({"tools.x": 1}))


def _unknown(overrides: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        load_config(None, overrides)
    return error.value


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("1912 - 1879", "33"),
        ("-(1 + 2) * 2", "-6"),
        ("1/0", "Error: ZeroDivisionError"),
        ("2 ** 3", "Error: KeyError"),
        ("1,912", "Error: TypeError"),
        ("None", "Error: TypeError"),
        ("[1]", "Error: TypeError"),
        ("one", "Error: ValueError"),
        ("1 +", "Error: SyntaxError"),
        ("9" * 400, "Error: OverflowError"),
        ("+".join("1" * 2000), "Error: RecursionError"),
        ("-" * 200_000 + "1", "Error: MemoryError"),
    ],
)
def test_the_pages_calculator_answers_whatever_a_policy_writes(written: str, said: str) -> None:
    (function,) = (text for language, text in examples()["Tools"] if language == "python")
    page: dict[str, Any] = {}
    exec(function, page)
    assert page["calculate"](written) == said
