"""The gradient's noise against brute force, a toy whose noise is known, and itself on two processes."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from evaluation import evaluate, numbers
from places import HELPERS
from tiny_models import make_model
from torch.func import functional_call, grad
from torchrun import launch

from lmsat_plugin import measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.probes import gradient_noise
from lmsat_plugin.probes.gradient_noise import gradients
from lmsat_plugin.probes.gradient_noise.gradients import GradientSum, differentiable
from lmsat_plugin.probes.gradient_noise.probe import GradientNoise, jackknife

SETTINGS = {"noise_tokens": 500, "noise_sequence": 40}


def run(model, documents, tokenizer, **settings):
    """Return the outcome on the documents that have text."""
    return measure(
        model, ["gradient_noise"], corpus=[text for text in documents if text], tokenizer=tokenizer,
        **{**SETTINGS, "max_tokens": None, **settings},
    )  # fmt: skip


@pytest.fixture
def drawn(monkeypatch):
    """Return a list to which the probe adds the sequences it draws."""
    found = []
    own = gradient_noise.GradientNoiseProbe._draw
    monkeypatch.setattr(
        gradient_noise.GradientNoiseProbe, "_draw", lambda *args: found.extend(own(*args)) or found
    )
    return found


def brute_force(model, windows) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the sequences' products of gradients [K, K], their tokens [K], and their loss, all in float64."""
    model = copy.deepcopy(model).double()
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(weights, window):
        tokens = torch.as_tensor(window.tokens).long()
        logits = functional_call(model, weights, (tokens[None, :-1],), {"use_cache": False}).logits[0]
        chosen = logits.log_softmax(-1)[torch.arange(len(tokens) - 1), tokens[1:]]
        return -chosen[len(chosen) - window.scored :].sum()

    rows = [
        torch.cat([part.flatten() for part in grad(loss)(weights, window).values()]) for window in windows
    ]
    with torch.no_grad():
        nats = sum(float(loss(weights, window)) for window in windows)
    tokens = np.array([window.scored for window in windows])
    stacked = torch.stack(rows)
    return (stacked @ stacked.T).numpy(), tokens, nats / tokens.sum()


def by_definition(products: np.ndarray, tokens: np.ndarray) -> tuple[float, float]:
    """Return |G|² as the mean of the products of different sequences, and tr Σ from what that leaves of |G_big|²."""
    apart = ~np.eye(len(tokens), dtype=bool)
    squared = products[apart].sum() / np.outer(tokens, tokens)[apart].sum()
    return squared, tokens.sum() * (products.sum() / tokens.sum() ** 2 - squared)


@pytest.mark.parametrize("name", ["gpt_neox", "gpt2", "llama", "opt", "opt_narrow", "gemma2", "mamba"])
def test_all_is_as_by_brute_force(name, documents, tokenizer, drawn):
    model = make_model(name, spread=2)
    outcome = run(model, documents, tokenizer)
    metrics = {key.removeprefix("gradient_noise/"): value for key, value in outcome.metrics.items()}
    products, tokens, loss = brute_force(model, drawn)
    assert 500 <= tokens.sum() < 540
    assert len(set(tokens.tolist())) > 1
    squared, trace = by_definition(products, tokens)
    expected = {"gradient_norm_squared": squared, "noise_trace": trace}
    expected["kaplan_critical_batch_tokens"] = 2e8 / loss ** (1 / 0.21)
    expected |= {"critical_batch_tokens": trace / squared, "gradient_norm": math.sqrt(squared)}
    for key, value in expected.items():
        assert metrics[key] == pytest.approx(value, rel=1e-4), key

    each = np.arange(len(tokens))
    without = [by_definition(products[np.ix_(each != i, each != i)], tokens[each != i]) for i in each]
    squared_K, trace_K = np.array(without).T
    for key, values_K in {
        "gradient_norm_squared": squared_K,
        "noise_trace": trace_K,
        "critical_batch_tokens": trace_K / squared_K,
        "gradient_norm": np.sqrt(squared_K),
    }.items():
        error = math.sqrt((len(each) - 1) * np.var(values_K))
        assert metrics[f"{key}_stderr"] == pytest.approx(error, rel=0.1), key
    facts = outcome.provenance["probes"]["gradient_noise"]
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    assert (facts["sequences"], facts["tokens"]) == (len(tokens), tokens.sum())
    assert facts["loss"] == pytest.approx(loss, rel=1e-5)


def test_standard_errors_of_many_sequences_are_by_group(documents, tokenizer, drawn, monkeypatch):
    monkeypatch.setattr(gradient_noise, "_MOST_GROUPS", 5)
    metrics = run(make_model("gpt_neox"), documents, tokenizer).metrics
    products, tokens, _ = brute_force(make_model("gpt_neox"), drawn)
    groups = np.arange(len(tokens)) % 5
    without = [
        by_definition(products[np.ix_(groups != g, groups != g)], tokens[groups != g]) for g in range(5)
    ]
    errors = np.sqrt(4 * np.var(without, 0))
    assert metrics["gradient_noise/gradient_norm_squared_stderr"] == pytest.approx(errors[0], rel=0.1)
    assert metrics["gradient_noise/noise_trace_stderr"] == pytest.approx(errors[1], rel=0.1)


@pytest.mark.parametrize("signal", [0.0, 0.3, 3.0])
def test_estimates_are_unbiased_and_jackknife_knows_their_spread(signal):
    """Sequences of 2 to 40 tokens whose gradients are normal, of a known mean and covariance."""
    rng = np.random.default_rng(0)
    tokens = np.array([2, 5, 5, 9, 12, 20, 31, 40, 40, 40])
    scales = np.linspace(0.2, 2, 6)
    mean = np.full(6, signal)
    repetitions = 20_000
    noise = rng.normal(size=(repetitions, len(tokens), 6)) * scales
    sums = tokens[:, None] * mean + np.sqrt(tokens)[:, None] * noise

    def estimate(sums, tokens):
        squares = (sums**2).sum(2).sum(1)
        return GradientNoise.of((sums.sum(1) ** 2).sum(1), squares, tokens.sum(), (tokens**2).sum())

    found = estimate(sums, tokens)
    for values, known in (
        (found.squared_norm, (mean**2).sum()),
        (found.trace, (scales**2).sum()),
    ):
        assert abs(values.mean() - known) < 4 * values.std() / math.sqrt(repetitions)

    each = np.arange(len(tokens))
    without = np.array([estimate(sums[:2000, each != i], tokens[each != i]).squared_norm for i in each])
    variances = [jackknife(column) ** 2 for column in without.T]
    # A jackknife of products is on the safe side where the noise dominates.
    assert 0.9 < np.mean(variances) / found.squared_norm.var() < (3 if signal == 0 else 1.3)


def test_equal_sequences_are_the_papers_formulas():
    rng = np.random.default_rng(1)
    gradients_KD = rng.normal(size=(8, 5)) + 1
    small, big = 16, 128
    small_squared = (gradients_KD**2).sum(1).mean()
    big_squared = (gradients_KD.mean(0) ** 2).sum()
    sums_KD = small * gradients_KD
    found = GradientNoise.of((sums_KD.sum(0) ** 2).sum(), (sums_KD**2).sum(), big, 8 * small**2)
    squared = (big * big_squared - small * small_squared) / (big - small)
    trace = (small_squared - big_squared) / (1 / small - 1 / big)
    assert found.squared_norm == pytest.approx(squared)
    assert found.trace == pytest.approx(trace)
    assert found.critical_batch == pytest.approx(trace / squared)


def test_sketches_keep_products(monkeypatch):
    """Of gradients that are the same in all but noise, and repeat themselves along rows as matrices' do."""
    monkeypatch.setattr(gradients, "SKETCH", 521)
    monkeypatch.setattr(gradients, "_PIECE", 16 * 521)
    parameter = torch.nn.Parameter(torch.zeros(300, 256))
    sums = GradientSum([parameter], torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(300, 1, generator=generator) * torch.randn(1, 256, generator=generator)
    rows = [common + 2 * torch.randn(300, 256, generator=generator) for _ in range(6)]
    found = [sums.add((parameter * row).sum()) for row in rows]
    sketches, flat = torch.stack([sketch for _, sketch in found]), torch.stack(rows).flatten(1).double()
    products, norms = flat @ flat.T, flat.norm(dim=1)
    errors = (sketches @ sketches.T - products) / (norms[:, None] * norms)
    assert float(errors.square().mean().sqrt()) < 2 / math.sqrt(521)
    assert torch.stack([squared for squared, _ in found]) == pytest.approx(products.diag(), rel=1e-6)
    assert sums.squared_norm(False) == pytest.approx(float(flat.sum(0).square().sum()), rel=1e-6)


def test_half_types_are_measured_in_float32_and_frozen_parameters_count(documents, tokenizer):
    model = make_model("gpt2", spread=2).bfloat16()
    found = run(model, documents, tokenizer).metrics
    model.lm_head.weight.requires_grad_(False)
    frozen = run(model, documents, tokenizer).metrics
    expected = run(model.float(), documents, tokenizer).metrics
    assert found == frozen == pytest.approx(expected, rel=1e-6)


def state(model):
    """Return all that a measurement must not change."""
    tensors = [*model.parameters(), *model.buffers()]
    return (
        [(t.data_ptr(), t.dtype, t.requires_grad, None if t.grad is None else t.grad.clone()) for t in tensors],
        [t.detach().clone() for t in tensors],
        [module.training for module in model.modules()],
        [bool(p._post_accumulate_grad_hooks) for p in model.parameters()],
    )  # fmt: skip


@pytest.fixture
def half_trained():
    """Return a model of a half type in the midst of something: frozen parts, gradients, a part in training."""
    model = make_model("opt").bfloat16()
    for index, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(index % 2 == 0)
        if index % 3 == 0:
            parameter.grad = torch.full_like(parameter, 0.5)
    return model


def assert_same(before, after) -> None:
    for one, other in zip(before, after, strict=True):
        if isinstance(one, list | tuple):
            assert_same(one, other)
        elif isinstance(one, torch.Tensor):
            assert torch.equal(one, other)
        else:
            assert one == other


def test_model_is_left_as_it_was(half_trained, documents, tokenizer):
    before = state(half_trained)
    run(half_trained, documents, tokenizer)
    assert_same(before, state(half_trained))


def test_model_is_left_as_it_was_after_an_error(half_trained, documents, tokenizer, monkeypatch):
    half_trained.model.decoder.layers[1].train()
    before = state(half_trained)

    def use():
        with differentiable(half_trained) as parameters:
            assert all(p.requires_grad and p.grad is None and p.dtype == torch.float32 for p in parameters)
            assert not any(module.training for module in half_trained.modules())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert_same(before, state(half_trained))

    def fail(self):
        raise torch.OutOfMemoryError("out of memory")

    before = state(half_trained.eval())
    monkeypatch.setattr(torch.Tensor, "backward", fail)
    with pytest.raises(LmsatError, match="float32 on a sequence of 40 tokens: set noise_sequence lower"):
        run(half_trained, documents, tokenizer)
    assert_same(before, state(half_trained))


def test_noise_that_drowns_the_gradient_is_said(documents, tokenizer, monkeypatch, caplog):
    model = make_model("gpt_neox")
    monkeypatch.setattr(GradientSum, "squared_norm", lambda *args: 0.0)
    outcome = run(model, documents, tokenizer)
    names = {key.split("/")[1] for key in outcome.metrics}
    assert names == {
        *("gradient_norm_squared", "gradient_norm_squared_stderr", "noise_trace", "noise_trace_stderr"),
        "kaplan_critical_batch_tokens",
    }
    assert outcome.metrics["gradient_noise/gradient_norm_squared"] < 0
    assert outcome.provenance["probes"]["gradient_noise"]["drowned"] is True
    assert "set noise_tokens higher" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_tokens": 0}, "noise_tokens=0 is not right"),
        ({"noise_sequence": "long"}, "noise_sequence=long is not right"),
        ({"noise_tokens": 100}, "noise_tokens=100 .* only 3 sequences of 40, .* needs 4: set noise_sequence lower"),
        ({"noise_sequence": 10**6, "max_tokens": 3}, "of a corpus of 3 tokens are only 1 sequences of 64"),
        ({"noise_sequence": None, "max_tokens": 3}, "of a corpus of 3 tokens are only 3 sequences of 1,"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_met(settings, message, documents, tokenizer):
    long = [text for text in documents if len(text) > 2500]
    with pytest.raises(LmsatError, match=message) as caught:
        run(make_model("gpt_neox"), long, tokenizer, **settings)
    assert "\n" not in str(caught.value)


def test_broken_and_quantised_models_are_refused(documents, tokenizer):
    model = make_model("gpt_neox")
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = math.nan
    with pytest.raises(LmsatError, match=r"the loss of document .* is not finite: the checkpoint is broken"):
        run(model, documents, tokenizer)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.nan_to_num().to(torch.int8)
    with (
        pytest.raises(LmsatError, match=r"no parameter .* is of floating point, .*: load it unquantised"),
        differentiable(model),
    ):
        pass


def test_sequences_are_stretches_of_the_documents(documents, tokenizer, drawn):
    """Drawn from all over the corpus, each once, and all of them where there are no more."""
    model = make_model("gpt_neox")
    texts = [text for text in documents if text]
    run(model, texts, tokenizer, noise_tokens=10**9, noise_sequence=50)
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert sum(window.scored for window in drawn) == sum(map(len, encoded))
    expected = [[0, *tokens][start : start + 51] for tokens in encoded for start in range(0, len(tokens), 50)]
    assert sorted(window.tokens.tolist() for window in drawn) == sorted(expected)
    assert len({window.document for window in drawn[:8]}) > 2


SCRIPT = """
import json, sys
sys.path.insert(0, TESTS)
from evaluation import evaluate

results = evaluate("lmsat", ["lmsat_gradient_noise"], **json.loads(sys.argv[1]))
if results is not None:
    with open(sys.argv[2], "x") as file:
        json.dump({key: results[key] for key in ("results", "config")}, file, default=str)
"""


def test_two_processes_give_the_numbers_of_one(checkpoint, corpus_file, tmp_path):
    """The whole task in lm-eval, standard errors too."""
    arguments = {
        "model_args": {"pretrained": str(checkpoint("gpt2")), "dtype": "float32", "device": "cpu"},
        "corpus": str(corpus_file),
        **SETTINGS,
    }
    alone = evaluate("lmsat", ["lmsat_gradient_noise"], **arguments)
    (tmp_path / "script.py").write_text(SCRIPT.replace("TESTS", repr(str(HELPERS))))
    launch(2, str(tmp_path / "script.py"), json.dumps(arguments), str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["config"]["lmsat"]["processes"] == 2
    expected = numbers(alone)
    assert ("lmsat_gradient_noise", "critical_batch_tokens_stderr,none") in expected
    assert numbers(found) == pytest.approx(expected, rel=1e-5)
