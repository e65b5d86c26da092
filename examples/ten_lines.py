"""A trained agent with a reward of one's own: `python examples/ten_lines.py`, minutes on two cores."""

import calibadv
from calibadv.types import Question, Trajectory


def reward(question: Question, trajectory: Trajectory) -> dict[str, float]:
    """F1 of a well-formed answer, less 0.05 for each turn beyond the third."""
    answer = trajectory.answer_reward * trajectory.format_reward
    return {"answer": answer, "thrift": -0.05 * max(0, len(trajectory.turns) - 3)}


if __name__ == "__main__":
    run = calibadv.train(
        "pocket",
        reward=reward,
        run={"name": "ten-lines", "steps": 2, "overwrite": True},
        data={"questions_per_step": 8, "test_questions": 16},
        rollout={"engine": "torch", "engines": 1, "samples": 4},
        learner={"minibatch_rollouts": 16},
        search={"retriever": "bm25", "reranker": "none"},
    )
    print(run.metrics[["reward/mean", "reward/part_answer", "reward/part_thrift", "eval/f1"]])
    print(run.rollouts[["question", "answer", "reward"]].head())
    print(run.model)
