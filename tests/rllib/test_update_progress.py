"""What a learner reports of its update."""

from __future__ import annotations

from calibadv.rllib.update_progress import UpdateProgress, to_coordinator


def test_it_reports_the_begin_and_then_once_a_second_at_most() -> None:
    reported: list[tuple[int, int]] = []
    now_s = 10.0
    progress = UpdateProgress(lambda done, of: reported.append((done, of)), clock=lambda: now_s)
    progress.begin(40)
    for _ in range(10):  # 0.3 s each
        now_s += 0.3
        progress.step()
    assert reported == [(0, 40), (4, 40), (8, 40)]
    progress.begin(5)
    assert reported[-1] == (0, 5)


def test_a_learner_without_a_coordinator_reports_to_nobody_and_starts_no_ray() -> None:
    progress = UpdateProgress(to_coordinator(None))
    progress.begin(2)
    progress.step()
