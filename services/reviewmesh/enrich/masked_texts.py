"""Masks a review's text before it leaves, and translates the answer back to the unmasked text."""

from __future__ import annotations

import asyncio

from reviewmesh.enrich.items import TaskOutput, WorkItem
from reviewmesh.enrich.names import NameFinder, Span
from reviewmesh.leaving.masking import Masked, mask
from reviewmesh.leaving.policy import Policy
from reviewmesh_protos.inference.v1 import inference_pb2


async def mask_item(item: WorkItem, policy: Policy, names: NameFinder | None) -> Masked | None:
    """None when the policy masks names and they could not be found."""
    rule = policy.rule_of(item.business_id)
    assert rule is not None, "expected a rule that lets the review leave"
    spans: tuple[Span, ...] | None = ()
    if rule.masks_names:
        spans = None if names is None else await names.find(item)
    if spans is None:
        return None
    # In a thread: a long text takes a while, and this event loop checks the workers' health.
    return await asyncio.to_thread(mask, item.text, item.language, spans)


def unmasked(output: TaskOutput | None, masked: Masked, text: str) -> TaskOutput | None:
    """The answer about the masked text as one about `text`. Only entities have offsets."""
    if not isinstance(output, inference_pb2.NerOutput):
        return output
    entities = []
    for entity in output.entities:
        is_valid = 0 <= entity.start < entity.end <= len(masked.text)
        if not is_valid or masked.text[entity.start : entity.end] != entity.text:
            continue
        span = masked.span(entity.start, entity.end)
        if span is not None:
            start, end = span
            entities.append(
                inference_pb2.Entity(
                    start=start,
                    end=end,
                    text=text[start:end],
                    label=entity.label,
                    score=entity.score,
                )
            )
    return inference_pb2.NerOutput(entities=entities)
