"""Losses under changed weights against a copy of the model that is changed by hand; afterwards nothing is changed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_models import WINDOW, make_model

from lmsat_plugin import measure
from lmsat_plugin.errors import DivergedError, LmsatError
from lmsat_plugin.model.changed_weights import quantised, restored
from lmsat_plugin.model.fixed import model_digest
from lmsat_plugin.model.matrices import matrices_of

SIX = ["gpt2", "gpt_neox", "opt_narrow", "llama", "gemma2", "mamba"]


def rounded_by_hand(weight: np.ndarray, bits: int) -> np.ndarray:
    """Return weights rounded one group of one row after another."""
    out = np.array(weight, dtype=np.float64)
    most = 2 ** (bits - 1) - 1
    for row in out:
        for start in range(0, len(row), 128):
            group = row[start : start + 128]
            scale = np.abs(group).max() / most
            if scale:
                group[:] = np.rint(group / scale) * scale
    return out


@pytest.mark.parametrize("bits", [8, 4, 3])
@pytest.mark.parametrize("inputs", [5, 128, 300])
def test_rounding(bits, inputs):
    weight = torch.randn(7, inputs, generator=torch.Generator().manual_seed(inputs))
    weight[2] = 0
    found = quantised(weight, bits)
    np.testing.assert_allclose(found.numpy(), rounded_by_hand(weight.numpy(), bits), rtol=1e-6)
    assert len(np.unique(found[0, :128].numpy())) <= 2**bits - 1


def loss_of(model, tokenizer, texts) -> float:
    outcome = measure(model, ["loss"], corpus=texts, tokenizer=tokenizer, max_length=WINDOW)
    return outcome.metrics["lmsat_loss/loss"]


@pytest.mark.parametrize("architecture", SIX)
def test_against_a_model_changed_by_hand(architecture, tokenizer, documents):
    texts = [text for text in documents if text][:5]
    model = make_model(architecture).double()
    before = model_digest(model)
    settings = {"corpus": texts, "tokenizer": tokenizer, "max_length": WINDOW, "noise_draws": 2}
    outcome = measure(model, ["loss", "quantization", "weight_noise"], **settings)
    assert model_digest(model) == before
    loss = outcome.metrics["lmsat_loss/loss"]
    for bits in (8, 4, 3):
        other = make_model(architecture).double()
        for matrix in matrices_of(other):
            if matrix.is_linear:
                matrix.weight_OI.copy_(torch.from_numpy(rounded_by_hand(matrix.weight_OI.numpy(), bits)))
        rise = loss_of(other, tokenizer, texts) - loss
        found = outcome.metrics[f"lmsat-quantization/loss_increase_{bits}"]
        assert found == pytest.approx(rise, abs=1e-6 * loss)
    rises = {size: outcome.metrics[f"lmsat-weight-noise/loss_increase_{size}"] for size in ("0.5", "1", "2")}
    assert all(math.isfinite(rise) for rise in rises.values())
    # Another pass gives the same draws.
    again = measure(model, ["weight_noise"], **settings)
    for size, rise in rises.items():
        assert again.metrics[f"lmsat-weight-noise/loss_increase_{size}"] == pytest.approx(rise, abs=1e-9 * loss)


def test_size_of_the_noise(tokenizer, documents, monkeypatch):
    """It is ε of the matrix' norm, and the same draw for each size."""
    from lmsat_plugin.model import changed_weights

    matrix = next(matrix for matrix in matrices_of(make_model("llama")) if matrix.is_linear)
    own = matrix.weight_OI.float()
    one, two = (changed_weights.with_noise(matrix, size, 0) - own for size in (0.01, 0.02))
    assert float(one.norm() / own.norm()) == pytest.approx(0.01, rel=0.05)
    torch.testing.assert_close(two, 2 * one, rtol=1e-3, atol=1e-6)
    other = changed_weights.with_noise(matrix, 0.01, 1) - own
    assert abs(float((one * other).sum())) < 0.2 * float(one.norm() * other.norm())


def test_a_part_of_the_text(tokenizer, documents):
    """The loss of the first windows, of which the last document has more."""
    texts = [text for text in documents if text][:4]
    model = make_model("gpt_neox")
    settings = {"corpus": texts, "tokenizer": tokenizer, "max_length": WINDOW, "changed_tokens": 100}
    outcome = measure(model, ["quantization"], **settings)
    noted = outcome.provenance["probes"]["quantization"]
    assert 100 <= noted["changed_tokens"] < 100 + WINDOW
    whole = measure(model, ["quantization"], **{**settings, "changed_tokens": 10**9})
    assert whole.provenance["probes"]["quantization"]["changed_tokens"] > noted["changed_tokens"]


def test_the_pass_goes_no_further_than_asked(tokenizer, documents, monkeypatch):
    """Alone the probe runs four passes over the first windows; beside another it takes their losses from its pass."""
    from lmsat_plugin.measurement import forward

    texts = [text for text in documents if text][:4]
    settings = {"corpus": texts, "tokenizer": tokenizer, "max_length": WINDOW, "changed_tokens": 100}
    real, scored = forward.token_losses, []

    def counting(states_ND, *arguments, **options):
        scored.append(len(states_ND))
        return real(states_ND, *arguments, **options)

    monkeypatch.setattr(forward, "token_losses", counting)
    alone = measure(make_model("llama").double(), ["quantization"], **settings)
    tokens = alone.provenance["probes"]["quantization"]["changed_tokens"]
    assert sum(scored) == 4 * tokens
    scored.clear()
    both = measure(make_model("llama").double(), ["loss", "quantization"], **settings)
    # The shared pass reads its losses off the logits, with what else `lmsat_loss` needs of them.
    assert sum(scored) == 3 * tokens < 3 * both.metrics["lmsat_loss/tokens"]
    for name, value in alone.metrics.items():
        assert both.metrics[name] == pytest.approx(value, rel=1e-9)


def test_weights_come_back_after_an_error_and_out_of_memory(tokenizer, documents, monkeypatch):
    model = make_model("llama")
    before = model_digest(model)
    texts = [text for text in documents if text][:4]
    from lmsat_plugin.measurement import forward

    real, calls = forward.token_losses, []

    def run(fail_at: int, error: BaseException) -> None:
        def failing(*arguments, **options):
            calls.append(1)
            if len(calls) == fail_at:
                raise error
            return real(*arguments, **options)

        calls.clear()
        monkeypatch.setattr(forward, "token_losses", failing)
        measure(model, ["quantization"], corpus=texts, tokenizer=tokenizer, max_length=WINDOW, batch_size=2)

    plain = measure(model, ["quantization"], corpus=texts, tokenizer=tokenizer, max_length=WINDOW).metrics
    passes = 4
    run(10**9, RuntimeError())
    middle = len(calls) // passes * 2 + 1
    with pytest.raises(ValueError, match="broken"):
        run(middle, ValueError("broken"))
    assert model_digest(model) == before
    run(middle, torch.OutOfMemoryError("CUDA out of memory"))
    assert model_digest(model) == before
    monkeypatch.setattr(forward, "token_losses", real)
    again = measure(model, ["quantization"], corpus=texts, tokenizer=tokenizer, max_length=WINDOW).metrics
    assert again == plain


def test_restored_after_an_error():
    tensor = torch.randn(4, 5).bfloat16()
    copy = tensor.clone()

    def interrupted() -> None:
        with restored([tensor.T]):
            tensor.zero_()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(tensor, copy)


def test_what_cannot_be_changed(tokenizer, documents):
    texts = [text for text in documents if text][:2]
    model = make_model("llama")
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    with pytest.raises(DivergedError, match="not finite"):
        measure(model, ["quantization"], corpus=texts, tokenizer=tokenizer, max_length=WINDOW)
    model = make_model("llama")
    model.config.quantization_config = {"bits": 4}
    passes = []
    model.model.register_forward_pre_hook(lambda *_: passes.append(1), with_kwargs=False)
    with pytest.raises(LmsatError, match="is quantised"):
        measure(model, ["weight_noise"], corpus=texts, tokenizer=tokenizer, max_length=WINDOW, batch_size=1)
    # Two to take the model apart.
    assert len(passes) <= 2, "no pass is run for nothing"


def test_a_probe_without_any_value_says_why(tokenizer, documents, caplog):
    model = make_model("llama")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    texts = [text for text in documents if text][:2]
    outcome = measure(model, ["sharpness"], corpus=texts, tokenizer=tokenizer, max_length=WINDOW)
    assert set(outcome.metrics.values()) == {None}
    [said] = [record.getMessage() for record in caplog.records if "no value" in record.getMessage()]
    assert said.endswith("no step changes the loss")
