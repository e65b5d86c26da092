"""A rollout as an MLflow trace: a root span from question to answer, and under it one span a turn with its credit."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from calibadv.tracking.record import RolloutRecord, TurnRecord

if TYPE_CHECKING:
    from mlflow.entities import Span, TraceInfo

_SHORTEST_NS = 1_000_000  # of a turn that nobody measured: a span needs an extent to be seen
_METADATA = 250  # characters of a value, MLflow's limit
PREVIEW = 1000  # characters of the question and the answer in the list of traces


def trace_id(run_id: str, record: Mapping[str, Any]) -> str:
    """MLflow's id of a rollout's trace: the same for the same rollout of a run, however often it is written."""
    name = f"{run_id} {record['step']} {record['question_id']} {record['index']}"
    return f"tr-{uuid.uuid5(uuid.NAMESPACE_OID, name).hex}"


def write_trace(tracking_uri: str, experiment_id: str, run_id: str, record: RolloutRecord, time_ms: int) -> None:
    """Write the rollout to the store as a trace of the run. Raises what MLflow raises.

    `time_ms`: when it was written down, Unix time. It is drawn as if it had ended then; what it took is measured.
    """
    from mlflow.entities import AssessmentSource, Feedback, Span, TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

    own_id = trace_id(run_id, {"step": record.step, "question_id": record.question_id, "index": record.index})
    took_ms = sum(map(_turn_ns, record.turns)) // 1_000_000
    begun_ms, usage = time_ms - took_ms, _usage(record)
    spans = [Span.from_dict(span) for span in _spans(record, own_id, 1_000_000 * begun_ms)]
    source = AssessmentSource(source_type="CODE", source_id="calibadv")
    info = TraceInfo(
        trace_id=own_id,
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=begun_ms,
        execution_duration=took_ms,
        state=TraceState.OK,
        # MLflow's list of traces has columns for input and output, none for the trace's name.
        request_preview=f"step {record.step} · {record.question}"[:PREVIEW],
        response_preview=(record.answer or "")[:PREVIEW],
        trace_metadata={
            **({TraceMetadataKey.TOKEN_USAGE: json.dumps(usage)} if usage else {}),
            TraceMetadataKey.SOURCE_RUN: run_id,
            # A group is a session: its rollouts of one question stand together.
            TraceMetadataKey.TRACE_SESSION: f"{run_id[:8]} step {record.step} {record.question_id}"[:_METADATA],
        },
        tags={
            TraceTagKey.TRACE_NAME: f"step {record.step} rollout {record.index + 1}/{record.group_size}",
            "step": str(record.step),
            "question_id": record.question_id,
            "reward": f"{record.reward:.4g}",
        },
        assessments=[
            Feedback(name=name, value=value, source=source, trace_id=own_id)
            for name, value in _figures(record).items()
            if value is not None
        ],
    )
    send_trace(tracking_uri, experiment_id, info, spans)


def send_trace(tracking_uri: str, experiment_id: str, info: TraceInfo, spans: list[Span]) -> None:
    """Write a trace with its spans. Raises what MLflow raises."""
    # The exporter behind MlflowClient.start_trace swallows errors, so that nobody would learn of them: the tracing
    # client writes spans and info itself.
    from mlflow.entities import TraceData
    from mlflow.tracing.client import TracingClient

    client = TracingClient(tracking_uri)
    try:
        client.log_spans(experiment_id, spans)
        client.start_trace(info)
    except NotImplementedError:
        # File stores keep no spans: the older way, spans as an artifact of the trace.
        client._upload_trace_data(client.start_trace(info), TraceData(spans))


def token_usage(read: int, written: int) -> dict[str, int]:
    """Counts by the names that MLflow's column of tokens reads."""
    return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}


def _usage(record: RolloutRecord) -> dict[str, int] | None:
    """Of the rollout; None where it is not known what it read."""
    written = sum(turn.tokens for turn in record.turns)
    return None if record.read_tokens is None else token_usage(record.read_tokens, written)


def _figures(record: RolloutRecord) -> dict[str, float | None]:
    """What MLflow filters and sorts traces by; None where it has no meaning."""
    return {
        "reward": record.reward,
        "f1": record.answer_reward,
        "format": record.format_reward,
        "silver_score": record.silver_score,
        "advantage": record.advantage,
    }


def _spans(record: RolloutRecord, trace_id: str, start_ns: int) -> list[dict[str, Any]]:
    took_ns = sum(map(_turn_ns, record.turns))
    root = span(
        trace_id,
        0,
        "rollout",
        "AGENT",
        (start_ns, start_ns + max(took_ns, _SHORTEST_NS)),
        inputs={"question": record.question},
        outputs={"answer": record.answer, "golden_answers": list(record.golden_answers)},
        attributes={
            "step": record.step,
            "question_id": record.question_id,
            "reward": record.reward,
            "f1": record.answer_reward,
            "format": record.format_reward,
            "policy_version": record.policy_version,
            "truncated": record.truncated,
            "mlflow.chat.tokenUsage": _usage(record),
        },
    )
    return [root, *turn_spans(trace_id, record.turns, start_ns)]


def turn_spans(
    trace_id: str, turns: Sequence[TurnRecord], start_ns: int, *, credit: bool = True
) -> list[dict[str, Any]]:
    """A span a turn, as MLflow's dictionaries, one after the other from `start_ns` (Unix time) on.

    `credit`: whether the turns are of a group, so that what they earned is known.
    """
    begins_ns = accumulate(map(_turn_ns, turns), initial=start_ns)
    numbered = enumerate(zip(turns, begins_ns, strict=False), start=1)
    return [_turn_span(trace_id, number, turn, begun_ns, credit=credit) for number, (turn, begun_ns) in numbered]


def _turn_ns(turn: TurnRecord) -> int:
    """What the turn took: the engine's answer and, after it, the search. Turns of one rollout follow each other."""
    return max(round(1e9 * (turn.generate_s + turn.search_s)), _SHORTEST_NS)


def _turn_span(trace_id: str, number: int, turn: TurnRecord, start_ns: int, *, credit: bool) -> dict[str, Any]:
    if turn.kind == "search":
        inputs: dict[str, Any] = {"think": turn.think, "query": turn.query}
        # The shape that MLflow's page draws as documents.
        outputs: Any = [
            {
                "page_content": doc.text,
                "metadata": {"doc_uri": doc.title, "title": doc.title} | ({"silver": doc.silver} if credit else {}),
                "id": doc.id,
            }
            for doc in turn.documents
        ]
    elif turn.kind == "call":
        inputs = {"think": turn.think, "text": turn.text}
        outputs = [{"tool": call.tool, "text": call.text} for call in turn.calls]
    else:
        inputs, outputs = {"think": turn.think}, {"answer": turn.answer, "text": turn.text}
    return span(
        trace_id,
        number,
        f"{number} {turn.kind}{_credit(turn)}",
        {"search": "RETRIEVER", "call": "TOOL"}.get(turn.kind, "LLM"),
        (start_ns, start_ns + _turn_ns(turn)),
        inputs=inputs,
        outputs=outputs,
        attributes={
            "kind": turn.kind,
            "silver_score": turn.score,
            "advantage_before": turn.advantage_before,
            "advantage_after": turn.advantage,
            "tokens": turn.tokens,
            "generate_s": turn.generate_s,
            "search_s": turn.search_s,
            "text": turn.text,
        },
    )


def _credit(turn: TurnRecord) -> str:
    """The turn's credit in a few characters, so that MLflow's tree of spans shows where it went."""
    if turn.advantage is None:
        return ""
    before = turn.advantage if turn.advantage_before is None else turn.advantage_before
    change = f" → {turn.advantage:.2f}" if abs(before - turn.advantage) > 1e-6 else ""
    score = "" if turn.score is None else f", c {turn.score:.2f}"
    return f" ({before:.2f}{change}{score})"


def span(
    trace_id: str,
    number: int,
    name: str,
    span_type: str,
    time_ns: tuple[int, int],
    *,
    inputs: Any,
    outputs: Any,
    attributes: dict[str, Any],
) -> dict[str, Any]:
    """A span as MLflow's dictionary: number 0 is the root, ids are hexadecimal, attribute values are JSON."""
    values = {
        "mlflow.traceRequestId": trace_id,
        "mlflow.spanType": span_type,
        "mlflow.spanInputs": inputs,
        "mlflow.spanOutputs": outputs,
        **attributes,
    }
    return {
        "trace_id": trace_id,
        "span_id": f"{number + 1:016x}",
        "parent_span_id": f"{1:016x}" if number else None,
        "name": name,
        "start_time_unix_nano": time_ns[0],
        "end_time_unix_nano": time_ns[1],
        "events": [],
        "status": {"code": "STATUS_CODE_OK", "message": ""},
        "attributes": {
            name: json.dumps(value, ensure_ascii=False) for name, value in values.items() if value is not None
        },
    }
