"""A plugin's probe cannot change what others measure: the model, the tokens, the states that pass by."""

from __future__ import annotations

import pytest
import torch
from evaluation import write_probe_task

from lmsat_plugin import LmsatError, Measurement, Need, Probe, hookimpl, load_results, measure
from lmsat_plugin.cli.main import main
from lmsat_plugin.model.fixed import model_digest
from lmsat_plugin.plugins import plugins


def scale(context):
    context.model.get_output_embeddings().weight.data.mul_(2)


def replace(context):
    head = context.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach() + 1)


def permute(context):
    weight = context.model.get_input_embeddings().weight
    weight.data[:] = weight.data.flip(0)


def hook(context):
    context.model.get_output_embeddings().register_forward_hook(lambda module, args, output: output * 2)


def widen(context):
    context.model.double()


def train(context):
    context.model.train()


def blank(context):
    for document in context.corpus.documents:
        document.tokens[:] = 1


def grow(context):
    context.tokenizer.add_tokens(["lmsat"])


CHANGES = {**dict.fromkeys((scale, replace, permute, hook, widen, train), "model"), blank: "tokens", grow: "tokenizer"}


class MeddlingProbe(Probe):
    name = "a_meddler"
    needs = Need.TOKENS | Need.HIDDEN_STATES | Need.TOKEN_LOSSES
    change = staticmethod(lambda context: None)
    late = False

    def start(self, context):
        self.context = context
        if not self.late:
            self.change(context)

    def update_hidden(self, layer, states_ND, batch):
        states_ND.data.zero_()
        batch.targets_N.zero_()

    def update_losses(self, losses_N, batch):
        losses_N.zero_()

    def finish(self):
        if self.late:
            self.change(self.context)
        return Measurement({"size": 1.0})


@pytest.fixture
def meddling(monkeypatch):
    """Register the probe ``a_meddler``, and return a function that says what it changes."""

    @hookimpl
    def lmsat_register_probes(registry):
        registry.add(MeddlingProbe)

    @hookimpl
    def lmsat_checkpoint_measured(event):
        for measurement in event.measurements.values():
            measurement.metrics.update(dict.fromkeys(measurement.metrics, 0.0))

    hooks = {hook.__name__: staticmethod(hook) for hook in (lmsat_register_probes, lmsat_checkpoint_measured)}
    plugin = type("Plugin", (), hooks)()
    plugins().register(plugin, "meddler", "meddler 1.0")

    def meddle(change, *, late=False):
        monkeypatch.setattr(MeddlingProbe, "change", staticmethod(change))
        monkeypatch.setattr(MeddlingProbe, "late", late)

    yield meddle
    plugins().manager.unregister(plugin)
    del plugins().probes["a_meddler"]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("change", "part"), CHANGES.items(), ids=lambda value: getattr(value, "__name__", value))
def test_a_probe_that_changes_what_it_measures_is_refused_by_name(checkpoint, meddling, change, part, late):
    meddling(change, late=late)
    with pytest.raises(LmsatError, match=f"^the probe 'a_meddler' changed the {part} that it measured: leave it out"):
        measure(checkpoint("gpt_neox"), ["a_meddler", "loss", "head"], max_tokens=300, device="cpu")


def test_what_a_probe_does_to_states_and_losses_stays_its_own(checkpoint, meddling):
    folder = checkpoint("gpt_neox")
    alone = measure(folder, ["loss", "anisotropy"], max_tokens=300, device="cpu").metrics
    beside = measure(folder, ["a_meddler", "loss", "anisotropy"], max_tokens=300, device="cpu").metrics
    assert beside == {**alone, "lmsat_a_meddler/size": 1.0}


def test_built_in_probes_leave_the_model_as_it_is(checkpoint):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint("gpt_neox"), dtype=torch.bfloat16)
    before = model_digest(model.eval())
    probes = ["loss", "anisotropy", "head", "rank_head", "gradient_noise"]
    settings = {"ranks": (2,), "train_tokens": 1024, "batch_tokens": 512, "max_tokens": 300}
    measure(model, probes, tokenizer=str(checkpoint("gpt_neox")), **settings)
    assert model_digest(model) == before


def test_a_sweep_goes_on_with_the_weights_that_it_names(checkpoint, meddling, tmp_path, capsys):
    task = write_probe_task(tmp_path / "tasks", "lmsat_a_meddler", "probe: a_meddler\n")
    lines = [f"models: [{checkpoint('gpt_neox')}]", f"include_path: {task}", "device: cpu", "max_tokens: 300"]

    def sweep(tasks, out):
        config = tmp_path / "sweep.yaml"
        config.write_text("\n".join([*lines, f"tasks: [{tasks}]", f"output: {tmp_path / out}"]), "utf-8")
        return main(["sweep", str(config)])

    def values(out):
        table = load_results(tmp_path / out)
        return dict(zip(table.task + table.metric, table.value, strict=True))

    assert sweep("lmsat_loss, lmsat_head", "right") == 0
    assert values("right")["lmsat_lossloss"] > 1
    for index, change in enumerate((scale, blank)):
        meddling(change)
        capsys.readouterr()
        assert sweep("lmsat_a_meddler, lmsat_loss, lmsat_head", f"out{index}") == 1
        assert "the probe 'a_meddler' changed the" in capsys.readouterr().err
        assert values(f"out{index}") == values("right")
