"""All probes (loss, anisotropy, head) share one forward pass. What does the rest cost?

Of SmolLM2-135M in float32 on 16,000 tokens of the corpus ``sample`` (the default is 50,000, which only dilutes what
does not grow with the tokens):

(a) lmsat, tokenising included, against a bare pass: a hand-written loop over the same batches, model and loss,
    nothing else. To reach: 1.10 at most.
(b) against what one runs today, one after the other: ``hf``'s ``loglikelihood_rolling`` at its fastest batch
    size, a loop with ``output_hidden_states=True`` that keeps the states and takes the cosines of all pairs of
    the corpus in each layer, and NumPy's SVD of the head. To reach: a third of their sum at most. The pairs grow
    with the square of the tokens, lmsat's cost does not: it is compared at 16,000 tokens.
(c) ``lm_eval``'s ``simple_evaluate`` of the whole glob ``lmsat_*`` with its defaults, 50,000 tokens, against a bare
    pass over as many. To reach: 2.2 at most. (``--quick``, on 2,000 tokens, shows what does not grow with them.)
(d) what `lmsat_geometry`, `lmsat_activations`, `lmsat_attention` and `lmsat_ngram_gap` add at their defaults, on 50,000
    tokens, as a share of a bare pass over as many. To reach: 0.5 at most.
(e) the probe of the loss alone, with accuracy, entropy, calibration and frequencies, against a bare pass with the loss.
    To reach: 1.2 at most.
(f) ``lmsat-similarity`` with a reference that nobody has measured before, which is loaded and runs too, against a bare
    pass. In a series the reference's half falls away. For information.
(g) the floor: the time that the model's and the head's matrix products alone take, at the rate at which this
    machine does products of these shapes, as a share of lmsat's time. For information.
"""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import common
import numpy as np
import torch
import transformers
from loss_memory_speed import fastest_batch_size

import lmsat_plugin
from lmsat_plugin.measurement.execution import Execution
from lmsat_plugin.model.anatomy import dissect
from lmsat_plugin.model.cross_entropy import token_losses
from lmsat_plugin.plugins import plugins
from lmsat_plugin.text.corpora import CorpusSettings, load_corpus
from lmsat_plugin.text.tokenization import tokenize
from lmsat_plugin.text.windows import PaddedBatch, make_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lmsat_plugin.model.anatomy import Anatomy
    from lmsat_plugin.text.tokenization import TokenizedCorpus
    from lmsat_plugin.text.windows import Window

PROBES = ("loss", "anisotropy", "head")
ADDED = ("geometry", "activations", "attention", "ngram_gap")
DEFAULT_TOKENS = 50_000


def default_corpus(tokenizer: Any, tokens: int) -> TokenizedCorpus:
    """Return the corpus that `lmsat_plugin.measure` takes by default."""
    settings = CorpusSettings(max_tokens=tokens)
    corpus = load_corpus(settings, plugins().corpora)
    return tokenize(corpus, settings, tokenizer, prefix=tokenizer.bos_token_id, window=common.WINDOW)


def default_batches(corpus: TokenizedCorpus, device: torch.device) -> list[list[Window]]:
    execution = Execution(device=device, batch_size="auto")
    return make_batches(corpus.windows, execution.batch_tokens(corpus.windows, corpus.window))


@torch.no_grad()
def bare_pass(anatomy: Anatomy, batches: Sequence[PaddedBatch]) -> float:
    """Return the loss by the shortest loop that gives it."""
    device, total, count = anatomy.model.device, 0.0, 0
    for batch in batches:
        states = anatomy.base(input_ids=batch.inputs_BT.to(device), use_cache=False).last_hidden_state
        losses = token_losses(states.flatten(0, 1)[batch.scored_N.to(device)], batch.targets_N, anatomy.head)
        total += float(losses.sum())
        count += len(losses)
    return total / count


# What one runs today.


@torch.no_grad()
def cosines_today(model: Any, windows: Sequence[Window]) -> np.ndarray:
    """Return the mean cosine of all pairs of the corpus per layer, from all hidden states of all windows."""
    units: list[list[torch.Tensor]] = []
    for window in windows:
        inputs = torch.from_numpy(window.tokens[None, :-1].astype(np.int64)).to(model.device)
        layers = model(input_ids=inputs, output_hidden_states=True).hidden_states
        units.append([torch.nn.functional.normalize(states[0, -window.scored :], dim=-1) for states in layers])
    means = []
    for layer in zip(*units, strict=True):
        rows = torch.cat(layer)
        n = len(rows)
        total = sum(float((block @ rows.T).sum(dtype=torch.float64)) for block in rows.split(2048))
        means.append((total - n) / (n * n - n))
    return np.array(means)


def today(model: Any, tokenizer: Any, corpus: TokenizedCorpus, texts: Sequence[str]) -> dict[str, Callable]:
    """Return the three runs; ``hf`` at its fastest batch size."""
    device = model.device.type
    hf = common.load("hf", model, tokenizer=tokenizer, device=device, max_length=common.WINDOW)
    requests, windows = common.rolling_requests(texts), corpus.windows
    trial = common.rolling_requests(common.documents(8_000))

    def loss(size: int, requests: Sequence[Any]) -> list[float]:
        hf.batch_size_per_gpu = size
        return common.rolling(hf, requests)

    best = fastest_batch_size(lambda size: loss(size, trial[: len(requests)]), device)
    weight = model.get_output_embeddings().weight.detach()
    return {
        f"hf's rolling log-likelihood, batch {best}": lambda: loss(best, requests),
        "hidden states and pairwise cosines": lambda: cosines_today(model, windows),
        "NumPy's SVD of the head": lambda: np.linalg.svd(weight.float().cpu().numpy(), compute_uv=False),
    }


def whole_glob(model: Any, tokenizer: Any, tokens: int) -> dict[str, Any]:
    """Run every task that ``lmsat_*`` names through lm-eval, on so many tokens."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    metadata = {"max_tokens": tokens}
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        lm = common.load("lmsat", model, tokenizer=tokenizer, batch_size="auto", device=model.device.type)
        manager = TaskManager(metadata=metadata)
        names = manager.match_tasks(["lmsat_*"])
        return lm_eval.simple_evaluate(lm, tasks=names, task_manager=manager, metadata=metadata)["results"]


def at_defaults(model: Any, tokenizer: Any, anatomy: Anatomy, tokens: int) -> dict[str, list[float]]:
    """Return the seconds of `whole_glob`, of probes with and without those of (d), and of the shortest loop.

    All are of so many tokens.
    """
    padded = [PaddedBatch.of(batch) for batch in default_batches(default_corpus(tokenizer, tokens), model.device)]
    runs = {
        "bare, default": lambda: bare_pass(anatomy, padded),
        "loss": lambda: quietly_measured(model, tokenizer, ("loss",), tokens),
        "without": lambda: quietly_measured(model, tokenizer, PROBES, tokens),
        "with": lambda: quietly_measured(model, tokenizer, (*PROBES, *ADDED), tokens),
        "glob": lambda: whole_glob(model, tokenizer, tokens),
        "similarity": lambda: quietly_measured(
            model, tokenizer, ("similarity",), tokens, reference=str(common.smollm2())
        ),
    }
    return common.interleaved(runs, 1)


def quietly_measured(model: Any, tokenizer: Any, probes: Sequence[str], tokens: int, **settings: Any) -> Any:
    sizes = {"max_tokens": tokens, "max_length": common.WINDOW}
    with contextlib.redirect_stderr(io.StringIO()):
        return lmsat_plugin.measure(model, probes, tokenizer=tokenizer, **sizes, **settings)


# The floor.


def products(model: Any, batches: Sequence[Sequence[Window]]) -> dict[tuple[int, int, int], int]:
    """Return how often each matrix product [rows, in] x [in, out] occurs, of linear layers and head, unpadded."""
    counts: dict[tuple[int, int, int], int] = {}
    for batch in batches:
        inputs, scored = sum(map(len, batch)), sum(window.scored for window in batch)
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):
                rows = scored if name == "lm_head" else inputs
                shape = (rows, module.in_features, module.out_features)
                counts[shape] = counts.get(shape, 0) + 1
    return counts


def attention_flops(model: Any, batches: Sequence[Sequence[Window]]) -> float:
    """Return the operations of the attention's two products, only where a position may look."""
    config = model.config
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    return sum(2 * len(window) ** 2 * width for batch in batches for window in batch) * config.num_hidden_layers


def product_seconds(shape: tuple[int, int, int], device: torch.device) -> float:
    """Return how long one product of a shape takes, at its best; the head's is timed on a part of its rows."""
    rows, inside, outside = shape
    part = min(outside, 8192)
    a, b = torch.randn(rows, inside, device=device), torch.randn(part, inside, device=device)
    out = torch.empty(rows, part, device=device)

    def multiply() -> None:
        torch.mm(a, b.T, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize()

    multiply()
    return min(common.seconds(multiply) for _ in range(3)) * outside / part


def floor(model: Any, batches: Sequence[Sequence[Window]]) -> tuple[float, float, float]:
    """Return the operations of all products, those per second of the linear ones, and the seconds all need."""
    counts = products(model, batches)
    linear = sum(2 * rows * inside * outside * count for (rows, inside, outside), count in counts.items())
    needed = sum(product_seconds(shape, model.device) * count for shape, count in counts.items())
    attention = attention_flops(model, batches)
    return linear + attention, linear / needed, needed * (1 + attention / linear)


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    tokens, rounds = (2_000, 2) if quick else (16_000, 2)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = common.smollm2()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    corpus = default_corpus(tokenizer, tokens)
    batches = default_batches(corpus, model.device)
    padded = [PaddedBatch.of(batch) for batch in batches]
    anatomy = dissect(model, padded[0].inputs_BT[0, :64])

    def ours() -> Any:
        return quietly_measured(model, tokenizer, PROBES, tokens)

    separate = today(model, tokenizer, corpus, common.documents(tokens))
    loss = ours().metrics["lmsat_loss/loss"]
    if abs(bare_pass(anatomy, padded) / loss - 1) > 1e-6:
        raise SystemExit("the bare pass and lmsat disagree: they do not do the same work")
    runs = {"lmsat": ours, "bare": lambda: bare_pass(anatomy, padded), **separate}
    times = common.interleaved(runs, rounds)
    times |= at_defaults(model, tokenizer, anatomy, tokens if quick else DEFAULT_TOKENS)
    best = {name: min(values) for name, values in times.items()}
    sums = [sum(each) for each in zip(*(times[name] for name in separate), strict=True)]
    flops, rate, needed = floor(model, batches)

    def row(quantity: str, a: str, b: Sequence[float], limit: float | None = None) -> common.Row:
        return common.Row(quantity, f"{best[a]:.2f} s", f"{min(b):.2f} s", common.ratio(times[a], b), at_most=limit)

    rows = [
        row("(a) all probes | bare pass", "lmsat", times["bare"], 1.10),
        row("(b) all probes | separate runs", "lmsat", sums, 1 / 3),
        *(row(f"    all probes | {name}", "lmsat", times[name]) for name in separate),
        # What does not grow with the text is most of it where that is short.
        row(
            "(c) lmsat_* in lm-eval | bare pass, default tokens", "glob", times["bare, default"], None if quick else 2.2
        ),
        common.Row(
            f"(d) {', '.join(ADDED)} | bare pass, default tokens",
            f"{best['with'] - best['without']:.2f} s",
            f"{best['bare, default']:.2f} s",
            (best["with"] - best["without"]) / best["bare, default"],
            at_most=None if quick else 0.5,
        ),
        row("(e) loss | bare pass, default tokens", "loss", times["bare, default"], None if quick else 1.2),
        row("(f) lmsat-similarity | bare pass, default tokens", "similarity", times["bare, default"]),
        common.Row(
            f"(g) all probes | {flops / 1e12:.2f} TFLOP at {rate / 1e9:.0f} GFLOP/s",
            f"{best['lmsat']:.2f} s",
            f"{needed:.2f} s ({needed / best['lmsat']:.0%})",
            best["lmsat"] / needed,
        ),
    ]
    return common.report(f"One pass over {corpus.n_tokens} tokens on {device}; ratio = lmsat / rival", rows)


if __name__ == "__main__":
    raise SystemExit(main())
