"""The outcome reward of a rollout: a number, or named parts whose sum it is (each part is a metric)."""

from calibadv.types import Question, Trajectory, TurnKind

FREE_SEARCHES = 2


def reward(question: Question, trajectory: Trajectory) -> dict[str, float]:
    """F1 of a well-formed answer, less 0.02 for each search beyond the second."""
    searches = sum(turn.kind is TurnKind.SEARCH for turn in trajectory.turns)
    return {
        "answer": trajectory.answer_reward * trajectory.format_reward,
        "thrift": -0.02 * max(0, searches - FREE_SEARCHES),
    }
