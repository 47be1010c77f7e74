"""How exact the numbers are, against computations that leave nothing out.

Anisotropy: all layers of SmolLM2-135M against a double loop over pairs in float64, on the very states that the
probe saw. To reach: 1e-9 relative at most. (These states against the model's own ``output_hidden_states``: 1e-4
of the largest entry, the rounding of a float32 forward pass.)

Spectrum: a matrix of 50,257 x 576 with condition number 1e5 against LAPACK's SVD of all of it in float64. To
reach: 1e-6 relative at most. The rivals are torch's SVD in float32 and the Gram matrix in float32.

Loss in bfloat16: ``lmsat`` and ``hf`` as lm-eval loads it by default (its softmax in bfloat16), against the
model's own bfloat16 states with head and softmax in float64. Mean over documents of the difference in nats per
token, for information, but for one target: that of ``lmsat`` is at most a hundredth of ``hf``'s.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import common
import numpy as np
import torch
import transformers

import lmsat_plugin
from lmsat_plugin.model.spectrum import singular_values


class Recorder(lmsat_plugin.Probe):
    """A probe that keeps the states it sees, in float64."""

    name = "recorder"
    needs = lmsat_plugin.Need.HIDDEN_STATES

    def start(self, context: lmsat_plugin.ProbeContext) -> None:
        self.layers: list[list[torch.Tensor]] = [[] for _ in context.layer_widths]
        self.windows = context.corpus.windows

    def update_hidden(self, layer: int, states_ND: torch.Tensor, batch: lmsat_plugin.TokenBatch) -> None:
        self.layers[layer].append(states_ND.double().cpu())

    def finish(self) -> lmsat_plugin.Measurement:
        return lmsat_plugin.Measurement({})


def mean_cosine(states_ND: np.ndarray) -> float:
    """Return the mean cosine of all pairs i < j, pair by pair."""
    units = states_ND / np.sqrt((states_ND * states_ND).sum(1))[:, None]
    n, total = len(units), 0.0
    for i in range(n):
        for j in range(i + 1, n):
            total += float(units[i] @ units[j])
    return total / (n * (n - 1) / 2)


@torch.no_grad()
def anisotropy_rows(folder: str, tokens: int) -> list[common.Row]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    recorder = Recorder()
    with contextlib.redirect_stderr(io.StringIO()):
        outcome = lmsat_plugin.measure(model, ["anisotropy", recorder], tokenizer=tokenizer, max_tokens=tokens)
    ours = outcome.arrays["anisotropy/by_layer"]
    seen = [torch.cat(parts).numpy() for parts in recorder.layers]
    brute = np.array([mean_cosine(states) for states in seen])
    worst = int((abs(ours - brute) / abs(brute)).argmax())
    windows = sorted(recorder.windows, key=len, reverse=True)
    inputs = [torch.from_numpy(window.tokens[None, :-1].astype(np.int64)) for window in windows]
    runs = [model(input_ids=one, output_hidden_states=True).hidden_states for one in inputs]
    own = [
        torch.cat([run[layer][0, -window.scored :] for run, window in zip(runs, windows, strict=True)]).numpy()
        for layer in range(len(seen))
    ]
    apart = max(abs(a - b).max() / abs(b).max() for a, b in zip(seen, own, strict=True))
    pairs = f"{len(seen)} layers, {len(seen[0])} states"
    return [
        common.Row(
            f"anisotropy, {pairs}: largest difference",
            f"{ours[worst]:.12f}",
            f"{brute[worst]:.12f}",
            abs(ours[worst] - brute[worst]) / abs(brute[worst]),
            at_most=1e-9,
        ),
        common.Row("states the probe sees: largest difference", "-", "-", float(apart), at_most=1e-4),
    ]


def spectrum_rows(rows: int, columns: int, condition: float) -> list[common.Row]:
    rng = np.random.default_rng(0)
    left = np.linalg.qr(rng.standard_normal((rows, columns)))[0]
    right = np.linalg.qr(rng.standard_normal((columns, columns)))[0]
    matrix = ((left * np.geomspace(1, 1 / condition, columns)) @ right).astype(np.float32)
    exact = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)

    def error(values: np.ndarray) -> float:
        return float((abs(values.astype(np.float64) - exact) / exact).max())

    ours = error(singular_values(torch.from_numpy(matrix)))
    single = error(torch.linalg.svdvals(torch.from_numpy(matrix)).numpy())
    gram = error(np.sqrt(np.linalg.eigvalsh(matrix.T @ matrix)[::-1].clip(min=0)))
    label = f"spectrum, {rows} x {columns}, condition {exact[0] / exact[-1]:.1e}: error"
    return [
        common.Row(f"{label} | SVD in float32", f"{ours:.1e}", f"{single:.1e}", ours, at_most=1e-6),
        common.Row(f"{label} | Gram in float32", f"{ours:.1e}", f"{gram:.1e}", ours, at_most=1e-6),
    ]


@torch.no_grad()
def reference_losses(folder: str, body: torch.dtype, windows: list[torch.Tensor]) -> np.ndarray:
    """Return nats of each window: bfloat16 weights, the body computed in a type, head and softmax in float64."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=body).eval()
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16())
    head = model.get_output_embeddings().weight.double()
    losses = []
    for tokens in windows:
        states = model.base_model(input_ids=tokens[None, :-1]).last_hidden_state[0].double()
        losses.append(float(torch.nn.functional.cross_entropy(states @ head.T, tokens[1:], reduction="sum")))
    return np.array(losses)


def loss_rows(folder: str, count: int) -> list[common.Row]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    # A window each, more than half as long as a batch: none is padded, so all see the same bfloat16 states.
    length, texts = 512, []
    for text in common.documents():
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        if len(offsets) > length:
            texts.append(text[: offsets[length - 40][1]])
    texts = texts[:count]
    requests = common.rolling_requests(texts)
    both: dict[str, Any] = {"dtype": "bfloat16", "max_length": length, "batch_size": 1}
    lmsat = common.load("lmsat", folder, **both)
    values = {"lmsat": common.rolling(lmsat, requests)}
    for name, softmax in (("hf", None), ("hf, softmax_dtype=float32", "float32")):
        values[name] = common.rolling(common.load("hf", folder, softmax_dtype=softmax, **both), requests)
    windows = [torch.tensor([lmsat.prefix_token_id, *lmsat.tok_encode(text)]) for text in texts]
    tokens = np.array([len(window) - 1 for window in windows])
    rows = []
    for body, label in ((torch.bfloat16, "float64 head on its own states"), (torch.float64, "all in float64")):
        exact = reference_losses(folder, body, windows)
        errors = {name: float((abs(np.array(nats) + exact) / tokens).mean()) for name, nats in values.items()}
        for name in list(values)[1:]:
            rows.append(
                common.Row(
                    f"bfloat16 loss, nats/token from {label} | {name}",
                    f"{errors['lmsat']:.1e}",
                    f"{errors[name]:.1e}",
                    errors["lmsat"] / errors[name],
                    at_most=0.01 if name == "hf" and body == torch.bfloat16 else None,
                )
            )
    return rows


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    folder = common.smollm2().as_posix()
    rows = anisotropy_rows(folder, 60 if quick else 300)
    rows += spectrum_rows(*((5000, 128) if quick else (50257, 576)), condition=1e5)
    rows += loss_rows(folder, 3 if quick else 12)
    return common.report("Exactness; ratio = the error that the target is about", rows)


if __name__ == "__main__":
    raise SystemExit(main())
