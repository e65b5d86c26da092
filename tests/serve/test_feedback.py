"""What the file of thumbs holds, also after a crash."""

from __future__ import annotations

from pathlib import Path

from calibadv.json_lines import read_json_lines
from serve.agent.feedback import Feedback


def test_a_rating_after_a_crash_that_tore_the_last_line_is_a_line_of_its_own(tmp_path: Path) -> None:
    (path := tmp_path / "feedback.jsonl").write_text('{"time": 1.0, "id": "resp_0", "rat')
    feedback = Feedback(path, lambda: 2.0)
    feedback.remember("resp_1", {"question": "who?", "answer": "Ada"})
    assert feedback.rate("resp_1", "up", "")
    rating = {"time": 2.0, "id": "resp_1", "rating": "up", "comment": "", "question": "who?", "answer": "Ada"}
    assert read_json_lines(path) == [rating]
