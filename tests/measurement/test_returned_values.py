"""A probe's return value is checked before anything is made of it: in Python, in a sweep, and when a sweep goes on."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from evaluation import write_probe_task

from lmsat_plugin import LmsatError, Measurement, Need, Probe, hookimpl, load_results, measure
from lmsat_plugin.cli.main import main
from lmsat_plugin.measurement.returned_values import checked
from lmsat_plugin.plugins import plugins
from lmsat_plugin.results.digests import with_digest

NUMBERS = {
    "0-d tensor": torch.tensor(1.5),
    "tensor that needs a gradient": torch.tensor(1.5, requires_grad=True),
    "0-d array": np.array(1.5),
    "float32": np.float32(1.5),
    "bfloat16": torch.tensor(1.5, dtype=torch.bfloat16),
}
WRONG = {
    "one-element tensor": (torch.tensor([1.5]), "Tensor of shape [1] and type torch.float32"),
    "array": (np.zeros(3), "ndarray of shape [3] and type float64"),
    "tensor without data": (torch.tensor(1.0, device="meta"), "Tensor of shape [] and type torch.float32"),
    "text": ("1.5", "str '1.5'"),
    "complex": (1j, "complex"),
    "truth": (np.True_, "bool"),
    "list": ([1.5], "list"),
    "null": (None, "None"),
    "integer beyond floats": (10**400, "int"),
}


class ValueProbe(Probe):
    name = "value"
    needs = Need.WEIGHTS
    returned = Measurement({})

    def start(self, context):
        pass

    def finish(self):
        return self.returned


@pytest.fixture
def returning(monkeypatch):
    """Return a function that makes the probe ``value`` return something."""

    @hookimpl
    def lmsat_register_probes(registry):
        registry.add(ValueProbe)

    plugin = type("Plugin", (), {"lmsat_register_probes": staticmethod(lmsat_register_probes)})()
    plugins().register(plugin, "value", "value 1.0")
    yield lambda value: monkeypatch.setattr(ValueProbe, "returned", value)
    plugins().manager.unregister(plugin)
    del plugins().probes["value"]


@pytest.mark.parametrize("value", NUMBERS.values(), ids=NUMBERS)
def test_scalars_become_floats(value):
    measurement = checked("mine", Measurement({"size": value, "count": 7}))
    assert json.dumps(measurement.metrics) == '{"size": 1.5, "count": 7}'


@pytest.mark.parametrize(("value", "named"), WRONG.values(), ids=WRONG)
def test_anything_else_is_a_sentence_that_names_probe_and_metric(value, named):
    with pytest.raises(LmsatError) as error:
        checked("mine", Measurement({"good": 1.0, "size": value}))
    message = str(error.value)
    assert message.startswith(f"the probe 'mine' returned {named}")
    assert " as the metric 'size': return a number" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("returned", "named"),
    [
        (None, "returned None: return a Measurement"),
        ({"size": 1.0}, "returned dict: return a Measurement"),
        (Measurement([1.0]), "returned list as metrics"),
        (Measurement({"a,b": 1.0}), "calls a metric 'a,b'"),
        (Measurement({"alias": 1.0}), "calls a metric 'alias'"),
        (Measurement({"9" * 201: 1.0}), "calls a metric '9999"),
        (Measurement({}, {"9" * 201: np.ones(1)}), "calls an array '9999"),
        (Measurement({}, {"curve": [1.0]}), "returned list as the array 'curve'"),
        (Measurement({}, {"curve": np.array(["a"])}), "ndarray of shape [1] and type <U1 as the array 'curve'"),
        (Measurement({}, {"curve": np.array([None])}), "type object as the array 'curve'"),
        (Measurement({}, {}, {"model": object()}), "details that cannot be written (object is not JSON)"),
    ],
)
def test_every_part_of_a_measurement_is_checked(returned, named):
    with pytest.raises(LmsatError, match=r"^the probe 'mine' ") as error:
        checked("mine", returned)
    assert named in str(error.value)


def test_arrays_and_details_are_plain_and_a_null_needs_its_reason():
    details = {"seed": np.int64(3), "norm": torch.tensor(0.5), "reasons": {"gap": "one document is too few"}}
    arrays = {"curve": torch.ones(2, dtype=torch.bfloat16), "big": np.arange(2, dtype=">i4")}
    measurement = checked("mine", Measurement({"gap": None}, arrays, details))
    assert measurement.metrics == {"gap": None}
    assert measurement.arrays["curve"].tolist() == [1.0, 1.0]
    assert measurement.arrays["big"].dtype.isnative
    assert measurement.arrays["big"].tolist() == [0, 1]
    assert measurement.details["seed"] == 3
    assert measurement.details["norm"] == 0.5


def test_measuring_in_python_checks_what_a_probe_returns(checkpoint, returning):
    returning(Measurement({"size": torch.tensor(2.5)}))
    outcome = measure(checkpoint("gpt_neox"), ["value"], device="cpu")
    assert type(outcome.metrics["lmsat_value/size"]) is float
    returning(Measurement({"size": torch.ones(2)}))
    with pytest.raises(LmsatError, match="the probe 'value' returned Tensor of shape"):
        measure(checkpoint("gpt_neox"), ["value"], device="cpu")


def test_a_sweep_records_a_wrong_value_and_measures_anew_what_an_older_one_wrote(
    checkpoint, returning, tmp_path, capsys
):
    task = write_probe_task(tmp_path / "tasks", "lmsat_value", "probe: value\n")
    config, out = tmp_path / "sweep.yaml", tmp_path / "out"
    lines = [f"models: [{checkpoint('gpt_neox')}]", "tasks: [lmsat_value, lmsat_head]", f"output: {out}"]
    config.write_text("\n".join([*lines, f"include_path: {task}", "device: cpu"]), "utf-8")
    returning(Measurement({"size": torch.ones(2)}))
    assert main(["sweep", str(config)]) == 1
    assert (
        "the probe 'value' returned Tensor of shape [2] and type torch.float32 as the metric 'size'"
        in capsys.readouterr().err
    )
    assert set(load_results(out).task) == {"lmsat_head"}

    returning(Measurement({"size": torch.tensor(2.5), "gap": None}, {}, {"reasons": {"gap": "one document"}}))
    assert main(["sweep", str(config), "--retry-failed"]) == 0
    assert load_results(out).query("metric == 'size'").value.tolist() == [2.5]
    assert main(["sweep", str(config)]) == 0
    assert "0 measured, 1 done before" in capsys.readouterr().out

    # As a sweep wrote it before values were checked: the digest is right, the value is text, or a null without reason.
    for value in ("tensor(2.5)", None, True):
        path = max(out.rglob("results_*.json"))
        document = json.loads(path.read_text("utf-8"))
        document["results"]["lmsat_value"]["size,none"] = value
        path.write_bytes(with_digest(document))
        assert main(["sweep", str(config)]) == 0
        assert "1 measured, 0 done before" in capsys.readouterr().out
        table = load_results(out)
        assert table.query("metric == 'size'").value.tolist() == [2.5]
        assert not table.value.map(math.isnan).any()


def test_masked_arrays_and_names_that_lm_eval_would_misread_are_refused():
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    with pytest.raises(LmsatError, match=r"returned MaskedArray of shape .2. and type float64 as the array 'a'"):
        checked("p", Measurement({"x": 1.0}, {"a": masked}))
    with pytest.raises(LmsatError, match="returned x_stderr, a standard error, without its metric"):
        checked("p", Measurement({"x_stderr": 1.0}))
    with pytest.raises(LmsatError, match="without a comma or a control character"):
        checked("p", Measurement({"x\x1b[31m": 1.0}))
    assert checked("p", Measurement({"x": 1.0, "x_stderr": 0.1})).metrics == {"x": 1.0, "x_stderr": 0.1}
