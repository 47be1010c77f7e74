"""A training that is killed goes on where it was; learning rates that diverge, and those that are searched."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from rank_head_runs import train
from tiny_models import make_model

from lmsat_plugin.model.lm_head import Head
from lmsat_plugin.probes.rank_head import trainer as trainer_module
from lmsat_plugin.probes.rank_head import training_state
from lmsat_plugin.probes.rank_head.settings import default_rate
from lmsat_plugin.probes.rank_head.trainer import HeadTrainer, LowRankHead
from lmsat_plugin.probes.rank_head.training_state import TrainingState


def test_a_killed_training_goes_on_where_it_was(tokenizer, texts, monkeypatch, tmp_path):
    monkeypatch.setattr(trainer_module, "_ROUND_TOKENS", 2048)
    monkeypatch.setattr(training_state, "_SAVE_SECONDS", 0.0)
    whole = train(make_model("gpt_neox"), tokenizer, texts)
    save, saved = TrainingState.save, []

    def kill(self, trainer, rounds, last):
        self._next = 0
        save(self, trainer, rounds, last)
        saved.append(rounds)
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingState, "save", kill)
    with pytest.raises(KeyboardInterrupt):
        train(make_model("gpt_neox"), tokenizer, texts)
    [left] = (tmp_path / "cache").rglob("*.safetensors")
    again = train(make_model("gpt_neox"), tokenizer, texts)
    assert saved == [1, 2, 3, 4, 5, 6], "the first three rounds are not trained again"
    assert again.metrics == whole.metrics
    np.testing.assert_array_equal(again.arrays["rank_head/training_loss"], whole.arrays["rank_head/training_loss"])
    assert not left.exists(), "a training that is through leaves nothing behind"


def test_a_kill_while_the_heads_are_measured_costs_no_training(tokenizer, texts, trained, monkeypatch):
    whole, _ = trained

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lmsat_plugin.model.low_rank.NestedHeads.losses", kill)
        with pytest.raises(KeyboardInterrupt):
            train(make_model("gpt_neox"), tokenizer, texts)
    monkeypatch.setattr(HeadTrainer, "step", kill)
    assert train(make_model("gpt_neox"), tokenizer, texts).metrics == whole.metrics


def test_another_model_or_setting_does_not_take_over_a_training(tokenizer, texts, monkeypatch):
    monkeypatch.setattr(trainer_module, "_ROUND_TOKENS", 2048)

    def paths(**changes):
        found = []
        monkeypatch.setattr(TrainingState, "load", lambda self, trainer: found.append(self.path) or 10**6)
        monkeypatch.setattr(HeadTrainer, "finish", lambda self: None)
        model = make_model("gpt_neox", seed=changes.pop("seed", 0))
        train(model, tokenizer, changes.pop("texts", texts), **changes)
        return found[0]

    same = paths()
    assert paths() == same
    others = [{"seed": 1}, {"learning_rate": 0.1}, {"train_seed": 1}, {"texts": texts[1:]}, {"ranks": [4]}]
    assert len({same, *(paths(**other) for other in others)}) == len(others) + 1


def test_a_cut_state_is_left_out(tokenizer, texts, monkeypatch, tmp_path, caplog):
    state = TrainingState(tmp_path / "state.safetensors", synchronise=False)
    state.path.write_bytes(b"\x10\0\0\0\0\0\0\0{cut")
    trainer = HeadTrainer([LowRankHead(torch.randn(9, 2), torch.randn(2, 3), 0.1)], Head(torch.randn(9, 3)), None)
    assert state.load(trainer) == 0
    assert "is left out: it cannot be read" in caplog.text


def test_heads_that_diverge_are_said_to(tokenizer, texts, caplog):
    outcome = train(make_model("gpt_neox"), tokenizer, texts, learning_rate=[0.001, 1e5])
    assert outcome.metrics["lmsat_rank_head/diverged_rank_48"] == 1
    assert "lmsat_rank_head/loss_rank_48" not in outcome.metrics
    assert math.isfinite(outcome.metrics["lmsat_rank_head/loss_rank_4"])
    assert "the head of rank 48 diverged at a learning rate of 100000" in caplog.text


def test_search_takes_the_best_rate(tokenizer, texts):
    found = train(make_model("gpt_neox"), tokenizer, texts, learning_rate="search")
    rates = found.provenance["probes"]["rank_head"]["training"]["learning_rates"]
    defaults = [default_rate("svd", rank, 48, 512) for rank in (4, 48)]
    assert {rate / default for rate, default in zip(rates, defaults, strict=True)} <= {0.25, 0.5, 1, 2, 4}
    plain = train(make_model("gpt_neox"), tokenizer, texts, learning_rate=rates)
    assert plain.metrics == found.metrics, "the search leaves no trace"
