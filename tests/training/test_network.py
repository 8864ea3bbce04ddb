"""The network and its loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reviewmesh_models.training.encoder.loop import partial_label_loss
from reviewmesh_models.training.encoder.schedule import rate_at
from reviewmesh_worker.engines.encoder.config import MINILM
from reviewmesh_worker.engines.encoder.network import ReviewNetwork
from reviewmesh_worker.tasks.definition import load_tasks
from reviewmesh_worker.tasks.labels import head_labels


def test_the_loss_is_of_all_allowed_tags_together() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]))
    allowed = torch.tensor([[True, True, False], [False, False, False]])
    loss = partial_label_loss(logits, allowed)
    assert loss.item() == pytest.approx(-np.log(0.8), abs=1e-5)


def test_padding_changes_nothing_that_the_network_says() -> None:
    torch.manual_seed(1)
    network = ReviewNetwork(head_labels(load_tasks()), MINILM).eval()
    ids = torch.randint(1000, 2000, (1, 7))
    wide = torch.cat((ids, torch.zeros(1, 5, dtype=torch.long)), 1)
    with torch.no_grad():
        alone = network(ids, torch.ones_like(ids), torch.ones_like(ids))
        padded = network(wide, (wide > 0).long(), (wide > 0).long())
    for ours, theirs in zip(alone[:3], padded[:3], strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)
    assert torch.allclose(alone[3], padded[3][:, :7], atol=1e-4)


def test_the_learning_rate_rises_and_runs_out() -> None:
    rates = [rate_at(step / 100) for step in range(101)]
    peak = rates.index(max(rates))
    assert 0 < rates[0] < 0.1
    assert peak < 10
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(0)
