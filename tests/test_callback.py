"""The callback of transformers' Trainer: what it logs is right, and the training does not notice it."""

from __future__ import annotations

import json
import pickle
import random

import numpy as np
import pytest
import torch
import transformers
from places import HELPERS
from tiny_models import WINDOW, make_model
from torchrun import launch
from training import LOSS, STEPS, train

from lmsat_plugin import LmsatError, Measurement, Need, Probe, SaturationCallback, measure


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def logged(trainer: transformers.Trainer) -> list[tuple[int, float]]:
    """Return steps and losses of the callback's entries in the Trainer's log."""
    return [(entry["step"], entry[LOSS]) for entry in trainer.state.log_history if LOSS in entry]


class Restless(Probe):
    """Draws random numbers, and leaves gradients behind."""

    name, needs = "restless", Need.WEIGHTS

    def start(self, subject):
        self.model = subject.model

    def finish(self):
        random.random(), np.random.rand(), torch.rand(1)
        assert not self.model.training
        self.model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
        return Measurement({"value": 1.0})


def test_training_is_the_same_to_the_bit_and_the_log_of_the_trainer_too(tokenizer, documents, tmp_path):
    callback = SaturationCallback(("loss", "anisotropy", "head", Restless()), every=2, corpus=documents, max_tokens=500)
    without = train(tokenizer, documents, tmp_path)
    trainer = train(tokenizer, documents, tmp_path, callback, include_num_input_tokens_seen="all")
    assert same_weights(trainer.model, without.model)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert [entry["step"] for entry in callback.history] == [0, 2, 4, STEPS]
    # Two sequences of WINDOW tokens, twice, make a step.
    assert [entry["tokens"] for entry in callback.history] == [4 * WINDOW * step for step in (0, 2, 4, STEPS)]
    assert logged(trainer) == [(entry["step"], entry["metrics"][LOSS]) for entry in callback.history]
    own = [
        [(entry["step"], entry["loss"]) for entry in run.state.log_history if "loss" in entry]
        for run in (without, trainer)
    ]
    assert own[0] == own[1]
    assert [step for step, _ in own[0]] == [2, 4]

    trainer.save_model(tmp_path / "saved")
    outcome = measure(tmp_path / "saved", ("loss", "anisotropy"), corpus=documents, max_tokens=500, device="cpu")
    last = callback.history[-1]["metrics"]
    for name, value in outcome.metrics.items():
        assert last[name] == pytest.approx(value, rel=1e-6), name

    frame = callback.to_frame()
    assert list(frame.columns) == ["step", "tokens", "task", "metric", "value"]
    losses = frame[(frame.task == "lmsat_loss") & (frame.metric == "loss")]
    assert list(zip(losses.step, losses.value, strict=True)) == logged(trainer)


def test_values_reach_the_integrations_once(tokenizer, documents, tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    callback = SaturationCallback(["loss"], every=2, corpus=documents, max_tokens=200)
    trainer = train(tokenizer, documents, tmp_path, callback, report_to="tensorboard")
    events = accumulator.EventAccumulator(str(tmp_path / "logs")).Reload()
    found = [(event.step, event.value) for event in events.Scalars(f"train/{LOSS}")]
    assert found == [(step, pytest.approx(value)) for step, value in logged(trainer)]
    assert [step for step, _ in found] == [0, 2, 4, STEPS]


class Recorder(transformers.TrainerCallback):
    """Sees logs as an integration that ``report_to`` names does: it comes before the callback."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs, **kwargs):
        self.seen += [(state.global_step, logs[LOSS])] if LOSS in logs else []


def test_each_trainer_logs_to_its_own_integrations(tokenizer, documents, tmp_path):
    """Also where one callback is that of several, and where it is added after the Trainer was made."""
    callback = SaturationCallback(["loss"], every=3, corpus=documents, max_tokens=200)
    recorders = Recorder(), Recorder()
    # The first Trainer is alive while the second trains.
    trainers = [
        train(tokenizer, documents, tmp_path, recorder, callback, steps=steps)
        for recorder, steps in zip(recorders, (1, 2), strict=True)
    ]
    assert [[step for step, _ in recorder.seen] for recorder in recorders] == [[0, 1], [0, 2]]
    assert [recorder.seen for recorder in recorders] == [logged(trainer) for trainer in trainers]

    recorder = Recorder()
    trainer = train(tokenizer, documents, tmp_path, recorder, steps=1)
    trainer.add_callback(callback)
    trainer.train()
    assert recorder.seen == logged(trainer)
    assert [step for step, _ in recorder.seen] == [0, 1]


def test_the_log_of_a_trainer_that_keeps_books_is_left_alone(tokenizer, documents, tmp_path):
    """As TRL's Trainers do, which log what they have gathered since they logged last."""

    class Gathering(transformers.Trainer):
        gathered = 0

        def training_step(self, *args, **kwargs):
            self.gathered += 1
            return super().training_step(*args, **kwargs)

        def log(self, logs, *args, **kwargs):
            gathered, self.gathered = self.gathered, 0
            super().log({**logs, "gathered": gathered}, *args, **kwargs)

    callback = SaturationCallback(["loss"], every=1, corpus=documents, max_tokens=200)
    books = []
    for callbacks in ([], [callback]):
        trainer = train(tokenizer, documents, tmp_path, *callbacks, trainer_type=Gathering)
        history = trainer.state.log_history
        books.append([(entry["step"], entry["gathered"]) for entry in history if "gathered" in entry])
    assert books[0] == books[1]
    assert [entry["step"] for entry in callback.history] == list(range(STEPS + 1))


def test_a_callback_that_no_trainer_was_given_logs_to_the_history_alone(tokenizer, documents, tmp_path, caplog):
    class Slipped(transformers.Trainer):
        def __init__(self, *args, callbacks, **kwargs):
            super().__init__(*args, **kwargs)
            self.callback_handler.callbacks += callbacks

    callback = SaturationCallback(["loss"], every=2, corpus=documents, max_tokens=200)
    trainer = train(tokenizer, documents, tmp_path, callback, trainer_type=Slipped)
    assert [step for step, _ in logged(trainer)] == [0, 2, 4, STEPS]
    warnings = [r.getMessage() for r in caplog.records if r.name == "lmsat_plugin.callback"]
    assert len(warnings) == 1
    assert "log_history only" in warnings[0]


def test_a_callback_is_pickled_without_its_trainer(tokenizer, documents, tmp_path):
    callback = SaturationCallback(["loss"], every=2, corpus=documents, max_tokens=200)
    train(tokenizer, documents, tmp_path, callback, steps=1)
    data = pickle.dumps(callback)
    assert pickle.loads(data).history == callback.history
    assert len(data) < 100_000


def test_only_what_is_asked_for(tokenizer, documents, tmp_path):
    callback = SaturationCallback(
        ["loss"], every=3, corpus=documents, max_tokens=200, at_start=False, at_end=False, seed=7, max_length=32
    )
    train(tokenizer, documents, tmp_path, callback)
    assert [(entry["step"], entry["tokens"]) for entry in callback.history] == [(3, None)]


def test_mixed_precision_and_modes_of_parts_are_left_alone(tokenizer, documents, tmp_path):
    class Watch(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            self.forward = model.forward
            self.modes = [module.training for module in model.modules()]

    model = make_model("gpt2", spread=1.0)
    frozen = model.transformer.h[0]
    frozen.train = lambda mode=True: torch.nn.Module.train(frozen, False)
    before, after = Watch(), type("After", (Watch,), {})()
    callback = SaturationCallback(["loss"], every=1, corpus=documents, max_tokens=200)
    trainer = train(tokenizer, documents, tmp_path, before, callback, after, model=model, steps=1, bf16=True)
    assert before.forward == after.forward
    assert before.modes == after.modes
    assert True in before.modes
    assert before.modes.count(False) == len(list(frozen.modules()))
    trainer.save_model(tmp_path / "saved")
    outcome = measure(tmp_path / "saved", ["loss"], corpus=documents, max_tokens=200, device="cpu")
    assert callback.history[-1]["metrics"][LOSS] == pytest.approx(outcome.metrics["lmsat_loss/loss"], rel=1e-6)


def test_compiled_blocks_are_compiled_for_the_training_only(tokenizer, documents, tmp_path):
    callback = SaturationCallback(["loss", "anisotropy"], every=1, corpus=documents, max_tokens=200)
    compiled = []
    for callbacks in ([], [callback]):
        torch._dynamo.reset()
        compiled.append([])

        def backend(graph, inputs, compiled=compiled[-1]):
            compiled.append([tuple(value.shape) for value in inputs if isinstance(value, torch.Tensor)])
            return graph.forward

        model = make_model("gpt2", spread=1.0)
        for block in model.transformer.h:
            block.compile(backend=backend)
        train(tokenizer, documents, tmp_path, *callbacks, model=model, steps=2)
    assert len(callback.history) == 3
    assert compiled[0]
    assert compiled[0] == compiled[1]


def test_hidden_states_can_be_had_afterwards(tokenizer, documents, tmp_path):
    trainer = train(tokenizer, documents, tmp_path, SaturationCallback(corpus=documents, max_tokens=200), steps=1)
    output = trainer.model(torch.tensor([[1, 2]]), output_hidden_states=True)
    assert len(output.hidden_states) == trainer.model.config.n_layer + 1


def test_early_stop_is_measured_while_the_integrations_are_open(tokenizer, documents, tmp_path):
    class Stop(transformers.TrainerCallback):
        def on_evaluate(self, args, state, control, **kwargs):
            control.should_training_stop = True

    callback = SaturationCallback(["loss"], every=100, corpus=documents, max_tokens=200, at_start=False)
    trainer = train(tokenizer, documents, tmp_path, callback, Stop(), eval_strategy="steps", eval_steps=3, max_steps=9)
    assert [step for step, _ in logged(trainer)] == [3]
    # The Trainer's own summary, logged before its integrations end, comes after.
    assert "train_runtime" in trainer.state.log_history[-1]


def test_best_model_is_not_taken_for_the_last_step(tokenizer, documents, tmp_path, caplog):
    """The first evaluation's is the best, the second stops the training, and then the best is loaded."""

    class Stop(transformers.TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.evaluations = 0

        def on_evaluate(self, args, state, control, **kwargs):
            self.evaluations += 1
            control.should_training_stop = self.evaluations == 2

    class FirstIsBest(transformers.Trainer):
        def _determine_best_metric(self, metrics, trial):
            first = self.state.best_model_checkpoint is None
            if first:
                self.state.best_model_checkpoint = f"{self.args.output_dir}/checkpoint-{self.state.global_step}"
            return first

    callback = SaturationCallback(["loss"], every=100, corpus=documents, max_tokens=200, at_start=False)

    def run(strategy: str, save: str, **options) -> transformers.Trainer:
        options |= {"eval_strategy": strategy, "save_strategy": save, "load_best_model_at_end": True}
        common = (tokenizer, documents, tmp_path / save, callback, Stop())
        return train(*common, steps=15, trainer_type=FirstIsBest, **options)

    run("steps", "steps", eval_steps=1, save_steps=1).save_model(tmp_path / "best")
    [entry] = callback.history
    assert entry["step"] == 2
    last, best = (
        measure(folder, ["loss"], corpus=documents, max_tokens=200, device="cpu").metrics["lmsat_loss/loss"]
        for folder in (tmp_path / "steps" / "checkpoint-2", tmp_path / "best")
    )
    assert entry["metrics"][LOSS] == pytest.approx(last, rel=1e-6)
    assert last != pytest.approx(best, rel=1e-3)
    assert "not measured" not in caplog.text

    callback.history.clear()
    run("epoch", "best")
    assert callback.history == []
    assert "step 10 is not measured: the Trainer has loaded its best model" in caplog.text


class Failing(Probe):
    name, needs = "failing", Need.WEIGHTS

    def start(self, subject):
        pass

    def finish(self):
        raise LmsatError("the head is not finite: leave it out")


def test_measurement_that_fails_is_a_warning(tokenizer, documents, tmp_path, caplog):
    callback = SaturationCallback(["loss", Failing()], every=4, corpus=documents, max_tokens=200)
    trainer = train(tokenizer, documents, tmp_path, callback)
    assert trainer.state.global_step == STEPS
    warnings = [r.getMessage() for r in caplog.records if r.name == "lmsat_plugin.callback"]
    sentence = "is not measured: the head is not finite: leave it out"
    assert warnings == [f"step {step} {sentence}" for step in (0, 4, STEPS)]
    assert callback.history == logged(trainer) == []
    assert list(callback.to_frame().columns) == ["step", "tokens", "task", "metric", "value"]


@pytest.mark.parametrize("every", [0, -5, 2.5, True, "500", None])
def test_bad_number_of_steps(every):
    with pytest.raises(LmsatError, match=r"every=.* is not a number of steps: give a whole number, at least 1"):
        SaturationCallback(every=every)


def test_unknown_probe_or_setting_is_named_at_construction():
    with pytest.raises(LmsatError, match="no probe is named 'entropy'"):
        SaturationCallback(["entropy"])
    with pytest.raises(LmsatError, match="'rnaks'"):
        SaturationCallback(["loss"], rnaks=3)


SCRIPT = """
import json, sys
sys.path.insert(0, TESTS)
import torch, transformers
from pathlib import Path
from tiny_models import make_model
from training import LOSS, train
from lmsat_plugin import SaturationCallback

folder, documents = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[3])
callback = SaturationCallback(["loss"], every=2, corpus=documents, max_tokens=500)
options = {"ddp_backend": "gloo", "include_num_input_tokens_seen": "all"}
saved = {}
for name, callbacks in {"without": [], "with": [callback]}.items():
    trainer = train(tokenizer, documents, folder, *callbacks, **options)
    assert trainer.model_wrapped is not trainer.model
    saved[name] = trainer.model.state_dict()
assert all(torch.equal(saved["with"][key], value) for key, value in saved["without"].items())
if trainer.is_world_process_zero():
    trainer.save_model(folder / "saved")
rank = trainer.args.process_index
(folder / f"{rank}.json").write_text(json.dumps([callback.history, trainer.state.log_history]))
""".replace("TESTS", repr(str(HELPERS)))


def test_two_processes_measure_together(tokenizer, documents, checkpoint, tmp_path):
    (tmp_path / "documents.json").write_text(json.dumps(documents))
    (tmp_path / "script.py").write_text(SCRIPT)
    paths = (tmp_path / "script.py", tmp_path, tmp_path / "documents.json", checkpoint("gpt2"))
    launch(2, *map(str, paths))
    (first, log), (second, _) = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert [entry["step"] for entry in first] == [entry["step"] for entry in log if LOSS in entry] == [0, 2, 4, 5]
    outcome = measure(tmp_path / "saved", ["loss"], corpus=documents, max_tokens=500, device="cpu")
    assert first[-1]["metrics"][LOSS] == pytest.approx(outcome.metrics["lmsat_loss/loss"], rel=1e-6)
