"""A fuzzer: whatever stands in files, names and settings, the answer is right or one sentence, never a traceback.

CI tries a thousand inputs, always the same. ``LMSAT_FUZZ=100000 pytest tests/fuzzed`` tries so many random
ones.
"""

from __future__ import annotations

import contextlib
import decimal
import json
import math
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from hostile_inputs import CI_INPUTS, TEXTS, changed, changed_tensors, cut, fresh, fuzzed, values
from hypothesis import given
from hypothesis import strategies as st
from places import TESTS

from lmsat_plugin import Measurement
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import folder_name, safe_name
from lmsat_plugin.measurement.returned_values import checked
from lmsat_plugin.plugins import plugins
from lmsat_plugin.probes.rank_head.training_state import TrainingState
from lmsat_plugin.results.array_files import pack_arrays
from lmsat_plugin.results.checkpoint_names import compile_pattern, parse_progress
from lmsat_plugin.series.finding import Checkpoint, find_checkpoints
from lmsat_plugin.series.selection import select
from lmsat_plugin.settings import parse_own
from lmsat_plugin.sweeps.config import load_config
from lmsat_plugin.text.corpora import CorpusSettings

if TYPE_CHECKING:
    pass


@contextlib.contextmanager
def sentences():
    """Take an error of lmsat's that is one sentence."""
    caught = None
    try:
        yield
    except LmsatError as error:
        caught = str(error)
    assert caught is None or len(caught) < 2000


NAMES = st.one_of(
    st.sampled_from(TEXTS),
    st.text(max_size=12),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["step", "stage1-step", "checkpoint-", "tokens", "iter_", "epoch_", "ckpt", ""]),
        st.integers(0, 10**25) | st.sampled_from(["9" * 5000, "٣", "1.5", "1k", "²"]),
        st.sampled_from(["", "-tokens21B", "-tokens" + "9" * 400 + "T", "k", "\n", "-seed-default", "\ud800"]),
    ),
)


@fuzzed(190)
@given(
    names=st.lists(NAMES, min_size=1, max_size=6), chosen=NAMES | st.sampled_from(["log:3", "every:2", "..", "1..2"])
)
def test_names_of_revisions(names, chosen):
    checkpoints = []
    for name in names:
        progress = parse_progress(name, tokens_per_step=2_097_152)
        for count in (progress.step, progress.tokens):
            assert count is None or 0 <= count < 2**63
        if named := re.fullmatch(r"(?:step|checkpoint-|iter_)([0-9]{1,18})(?:-seed-default)?", name):
            assert progress.step == int(named[1])
        assert len(folder_name(name)) < 200
        assert not {"/", "\0"} & {*folder_name(name), *safe_name(name)}
        checkpoints.append(
            Checkpoint(model="m", pretrained="m", revision=name, step=progress.step, tokens=progress.tokens)
        )
    for selection in (chosen, names[0], [names[-1], chosen]):
        with contextlib.suppress(LmsatError):
            assert select(checkpoints, selection)
    with contextlib.suppress(LmsatError):
        parse_progress(names[0], compile_pattern(chosen))


CONFIG = {
    "models": [{"pretrained": "EleutherAI/pythia-14m", "revisions": ["log:3"], "tokens_per_step": 5}, "runs/mine"],
    "tasks": ["lmsat_*", {"task": "arc_easy", "num_fewshot": 5}],
    "corpora": ["sample", {"corpus": "pile", "max_tokens": 7}],
    "metadata": {"ranks": [8, 16]},
    "output": "results",
    "slurm": {"time": 60, "additional": {"mail-type": "END"}},
    "limit": 0.5,
    "batch_size": "auto:2",
}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@fuzzed(50)
@given(
    text=st.one_of(
        changed(CONFIG).map(lambda values: yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "replace")),
        changed(CONFIG).map(lambda values: json.dumps(values).encode()),
        cut(yaml.safe_dump(CONFIG).encode()),
        st.text(alphabet="&*[]{}:,-?|>!%@`'\"#ab1\n ", max_size=60).map(str.encode),
    )
)
def test_configurations(folder, text):
    path = folder / "sweep.yaml"
    path.write_bytes(text)
    with sentences():
        config = load_config(path)
        assert config.models
        stated = yaml.safe_load(text)
        for name in ("limit", "keep", "seed", "max_tokens", "num_fewshot", "bootstrap_iters", "max_batch_size"):
            if is_number(stated.get(name)) and hasattr(config, name):
                assert getattr(config, name) == stated[name]


@fuzzed(50)
@given(data=st.data())
def test_metadata(data):
    """As lm-eval hands it on: a wrong value is named, and what is taken can be written down."""
    kinds = [CorpusSettings, *(probe.settings_type for probe in plugins().probes.values())]
    kind = data.draw(st.sampled_from(kinds))
    given = data.draw(st.dictionaries(st.sampled_from([*kind.model_fields, "x"]), values(), max_size=3))
    with sentences():
        settings = parse_own(kind, given)
        settings.model_dump_json()
        for name, value in given.items():
            if is_number(value) and name != "x":
                assert getattr(settings, name) in (value, (value,))


@fuzzed(40)
@given(state=changed({"global_step": 8, "num_input_tokens_seen": 100, "log_history": []}) | values(), name=NAMES)
def test_trainer_states(folder, state, name):
    folder = fresh(folder) / (safe_name(name)[:100] or "x")
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}", "utf-8")
    (folder / "trainer_state.json").write_bytes(json.dumps(state).encode("utf-8", "surrogatepass"))
    [checkpoint] = find_checkpoints(str(folder.parent if folder.name not in (".", "..") else folder))
    for count in (checkpoint.step, checkpoint.tokens):
        assert count is None or 0 <= count < 2**63
    step = state.get("global_step") if isinstance(state, dict) else None
    if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**63 and not re.search(r"\d", name):
        assert checkpoint.step == step


RETURNED = [
    *(np.float32(2.5), np.int64(3), np.bool_(True), np.float64("nan"), np.longdouble(1), np.datetime64("2020")),
    *(
        np.array(2),
        np.array([1, 2]),
        np.array(["a"]),
        np.array([None]),
        np.zeros((2, 0)),
        np.array([1], ">i4"),
        np.array(1j),
    ),
    *(
        torch.tensor(1.5),
        torch.tensor([1.5]),
        torch.tensor(2, dtype=torch.bfloat16),
        torch.tensor(1j),
        torch.tensor(True),
    ),
    *(
        torch.zeros(2, device="meta"),
        torch.zeros((), device="meta"),
        torch.eye(2).to_sparse(),
        torch.tensor(1.0, requires_grad=True),
    ),
    *(
        b"x",
        object(),
        decimal.Decimal("1.5"),
        {1},
        (1, 2),
        [],
        {"a": object()},
        Measurement({"loss": 1.0}),
        lambda: 1.0,
    ),
]


def endless() -> st.SearchStrategy[int]:
    """Whole numbers that Python refuses to write."""
    return st.just(5000).map(lambda digits: 10**digits)


def returned() -> st.SearchStrategy[Any]:
    return st.sampled_from(RETURNED) | values() | endless()


def named_values() -> st.SearchStrategy[Any]:
    return st.dictionaries(
        st.sampled_from([*TEXTS, "reasons", None]) | st.text(max_size=4) | endless(), returned(), max_size=3
    )


@fuzzed(110)
@given(
    measurement=st.builds(
        Measurement, *(named_values() | st.just({}) | returned() for _ in ("metrics", "arrays", "details"))
    )
    | returned()
)
def test_what_probes_return(measurement):
    """A number is taken as it is, and all that is taken can be written."""
    with sentences():
        taken = checked("mine", measurement)
        json.dumps(taken.details)
        data, _ = pack_arrays(taken.arrays)
        assert data
        for name, value in taken.metrics.items():
            given = measurement.metrics[name]
            if given is None:
                assert measurement.details["reasons"][name]
            else:
                assert is_number(value)
                assert value == float(given) or math.isnan(value)


def training(restored: dict[str, Any]) -> SimpleNamespace:
    """Return a stand-in for a training of two heads."""
    shapes = {"left.0": (3, 2), "left.1": (3, 4), "moments": (5,)}
    tensors = {
        name: torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape) for name, shape in shapes.items()
    }
    heads = [SimpleNamespace(left_VR=torch.zeros(1), diverged=diverged) for diverged in (False, True)]
    return SimpleNamespace(
        heads=heads,
        losses=[[1.5, 2.5], [1.25, math.nan]],
        tensors=lambda: dict(tensors),
        fits=lambda given: {name: tuple(tensor.shape) for name, tensor in given.items()} == shapes,
        restore=restored.update,
    )


@fuzzed(50)
@given(data=st.data())
def test_states_of_trainings(folder, data):
    """A training continues from what was saved, or begins anew and says so."""
    folder, restored = fresh(folder), {}
    trainer = training(restored)
    state = TrainingState(folder / "training_1.safetensors", synchronise=False)
    state.save(trainer, 7, last=True)
    content = data.draw(changed_tensors(state.path.read_bytes()))
    state.path.write_bytes(content)
    rounds = state.load(trainer)
    assert (rounds, state.path.exists()) in ((7, True), (0, False))
    if rounds:
        assert all(torch.equal(restored[name], tensor) for name, tensor in trainer.tensors().items())
        assert trainer.losses[:1] == [[1.5, 2.5]]
        assert [head.diverged for head in trainer.heads] == [False, True]


def test_the_fuzzers_share_the_inputs_of_ci():
    text = "".join(path.read_text("utf-8") for path in (TESTS / "fuzzed").glob("test_*.py"))
    shares = re.findall(r"^@fuzzed\((\d+)(?:, files=(\d+))?\)", text, re.MULTILINE)
    assert sum(int(examples) * int(files or 1) for examples, files in shares) == CI_INPUTS
