"""Every method by name. A new one is one file, an import and an entry here, one row in README.md and one test file."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError, validate_call

from calibadv.methods.calibadv import calibadv
from calibadv.methods.criticsearch import criticsearch
from calibadv.methods.first_exposure import first_exposure
from calibadv.methods.gigpo import gigpo
from calibadv.methods.grpo import grpo
from calibadv.methods.lld import lld
from calibadv.methods.method import Method
from calibadv.methods.mt_grpo import mt_grpo
from calibadv.methods.ppo import ppo
from calibadv.methods.simpletir import simpletir
from calibadv.methods.stepsearch import stepsearch
from calibadv.methods.tree_grpo import tree_grpo
from calibadv.methods.w_reinforce import w_reinforce
from calibadv.nearest import did_you_mean
from calibadv.refusals import problems
from calibadv.user_code import load, names_code

METHODS: dict[str, Callable[..., Method]] = {
    "calibadv": calibadv,
    "criticsearch": criticsearch,
    "first_exposure": first_exposure,
    "gigpo": gigpo,
    "grpo": grpo,
    "lld": lld,
    "mt_grpo": mt_grpo,
    "ppo": ppo,
    "simpletir": simpletir,
    "stepsearch": stepsearch,
    "tree_grpo": tree_grpo,
    "w_reinforce": w_reinforce,
}


def make_method(name: str, params: dict[str, Any], methods: Mapping[str, Callable[..., Method]] = METHODS) -> Method:
    """`methods[name](**params)`, or that of the user's function.

    ValueError with the nearest right name for an unknown one, or with a wrong value.
    """
    function = _function(name, methods)
    known = list(inspect.signature(function).parameters)
    for param in params:
        if param not in known:
            raise ValueError(
                f"method {name!r} has no parameter {param!r}{did_you_mean(param, known)}; "
                f"parameters: {', '.join(known) or 'none'}"
            )
        if isinstance(params[param], float) and not math.isfinite(params[param]):
            raise ValueError(f"method {name!r}: {param} is {params[param]}: expected a finite number")
    try:
        # Checked and converted by their annotations: `--method.params.pre_think False` is the text "False", and true.
        method = validate_call(function)(**params)
    except ValidationError as error:
        raise ValueError(f"method {name!r}: {problems(error.errors())[0]}") from None
    if not isinstance(method, Method):
        raise ValueError(f"method {name!r} returned {type(method).__name__}, expected a calibadv.methods.Method")
    return method


def all_params(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter of a known method, `params` over its defaults: what a run is told apart by."""
    return {
        known.name: known.default for known in inspect.signature(_function(name, METHODS)).parameters.values()
    } | dict(params)


def _function(name: str, methods: Mapping[str, Callable[..., Method]]) -> Callable[..., Method]:
    """Of ours by its name, or the user's as file.py:name or package.module:name."""
    if names_code(name):
        function: Callable[..., Method] = load(name, "method.name")
        return function
    if name not in methods:
        raise ValueError(f"unknown method {name!r}{did_you_mean(name, methods)}; methods: {', '.join(methods)}")
    return methods[name]


__all__ = ["METHODS", "Method", "all_params", "make_method"]
