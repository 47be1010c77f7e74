"""A training that is killed goes on where it was; learning rates that diverge, and those that are searched."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from rank_head_runs import train
from safetensors import safe_open
from safetensors.torch import save_file
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


def small_trainer(seed: int, rank: int = 2, optimizer: str = "adamw") -> HeadTrainer:
    torch.manual_seed(seed)
    heads = [LowRankHead(torch.randn(9, rank), torch.randn(rank, 3), 0.1) for _ in range(2)]
    trainer = HeadTrainer(heads, Head(torch.randn(9, 3)), lambda states: states, optimizer=optimizer)
    trainer.step(torch.randn(8, 3), torch.arange(8), 8, 1.0)
    return trainer


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-30] ^= 4
    path.write_bytes(data)


def forget_the_digest(path):
    with safe_open(path, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(tensors, path, {key: value for key, value in metadata.items() if key != "sha256"})


@pytest.mark.parametrize("damage", [cut, flip, forget_the_digest, lambda path: path.write_bytes(b"")])
def test_a_state_that_is_not_as_it_was_written_is_removed(damage, tmp_path, caplog):
    state = TrainingState(tmp_path / "state.safetensors", synchronise=False)
    state.save(small_trainer(0), 1, last=True)
    damage(state.path)
    fresh, same = small_trainer(1), small_trainer(1)
    assert state.load(fresh) == 0
    assert f"{state.path} is removed, and the training begins anew" in caplog.text
    assert not state.path.exists()
    assert all(torch.equal(fresh.tensors()[name], tensor) for name, tensor in same.tensors().items())


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_the_state_of_another_training_is_removed(optimizer, tmp_path, caplog):
    """Numbers that would be broadcast into the heads, and tensors that nothing knows."""
    state = TrainingState(tmp_path / "state.safetensors", synchronise=False)
    state.save(small_trainer(0, optimizer=optimizer), 1, last=True)
    assert state.load(small_trainer(1, optimizer=optimizer)) == 1
    other = small_trainer(0, rank=1, optimizer=optimizer)
    whole = small_trainer(0, optimizer=optimizer).tensors()
    zeros = {name: torch.zeros(1) for name in whole}
    for tensors in (other.tensors(), zeros, {**whole, "0.left.more": whole["0.left"].clone()}):
        other.tensors = lambda tensors=tensors: tensors
        state.save(other, 1, last=True)
        assert state.load(small_trainer(1, optimizer=optimizer)) == 0
        assert "(it is the state of another training)" in caplog.text
        assert not state.path.exists()
        caplog.clear()


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
