"""What rank-restricted LM heads cost, and how many tokens their training wants.

Of SmolLM2-135M in float32, on the corpus ``sample``:

(a) ten heads, of ranks 2, 4, ..., 512 and 576, trained in one pass, against each trained in a pass of its own, on the
    same tokens in the same steps: `HeadTrainer`, made and run; nothing of what the probe does before. To reach: 0.4.
(b) peak memory of a process that trains and measures the ten (lmsat_rank_head), against one that does so with the
    largest alone: resident memory, the model and Python included, or on a GPU what torch allocated. To reach: 1.5.
(c) a training step of the ten, its optimiser included, against the floor: the 6 · V · r · tokens operations of their
    matrix products, at the rate at which this machine does products of these shapes. To reach: 2 on a GPU.
(d) the weighted truncated heads of all default ranks, against the loss alone, both by `lmsat_plugin.measure` on 8,000
    tokens. To reach: 2. Before, the probe takes the metric from 16,384 tokens of other text and decomposes the head,
    whatever the number of tokens measured: with that, the same at the default 50,000 tokens, scaled from these. The
    probe measures the plain truncated heads, too; here they are left out. At full rank the weighted head is where the
    training begins: its loss is the model's own, to 1e-5 nats.

Of a small model whose head is the best there is, made for a Markov source, on text of that source:

(e) the tokens after which heads that begin as the truncated ones (``svd``) have the held-out loss of heads that begin
    as independent normal entries (``normal``), each number of tokens a training with a schedule of its own, at the
    worst rank. ``normal`` has 500,000 tokens, and its default learning rates, or for each rank the best of several,
    chosen in hindsight by the held-out loss. ``svd`` has its default rates. To reach: a tenth.

Shapes: V rows of the head, D width, N tokens.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
import numpy as np
import torch
import transformers
from loss_memory_speed import _kibibytes
from one_pass import default_corpus, product_seconds

import lmsat_plugin
from lmsat_plugin.measurement.execution import Execution, Processes
from lmsat_plugin.measurement.forward import ForwardPass
from lmsat_plugin.measurement.training_stream import FinalStateStream
from lmsat_plugin.model.anatomy import dissect
from lmsat_plugin.probes.rank_head.probe import RankHeadProbe
from lmsat_plugin.probes.rank_head.trainer import HeadTrainer, LowRankHead
from lmsat_plugin.synthetic import MarkovSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmsat_plugin.model.anatomy import Anatomy
    from lmsat_plugin.model.lm_head import Head
    from lmsat_plugin.text.windows import Window

RANKS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 576)
DEFAULT_TOKENS = 50_000
DOCUMENT = 1_000
RATE_FACTORS = (1, 2.5, 5, 10)
SHARES = (0.05, 0.1, 0.2, 0.4, 1.0)


def load_model(device: str) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(common.smollm2(), dtype=torch.float32)
    return model.to(device).eval()


def measured(model: Any, probes: Sequence[Any], **arguments: Any) -> lmsat_plugin.Outcome:
    """Measure without progress bars."""
    with contextlib.redirect_stderr(io.StringIO()):
        return lmsat_plugin.measure(model, probes, max_length=common.WINDOW, **arguments)


# (a), (b), (c): training.


def trainer_of(head: Head, ranks: Sequence[int]) -> HeadTrainer:
    """Return a trainer of heads cut from a head's columns: what they hold does not change what a step costs."""
    width, device = head.weight_VD.shape[1], head.weight_VD.device
    columns = [head.weight_VD[:, :rank].clone(memory_format=torch.contiguous_format) for rank in ranks]
    heads = [LowRankHead(left, torch.eye(left.shape[1], width, device=device), 1e-4) for left in columns]
    return HeadTrainer(heads, head, lambda states_ND: states_ND)


def together_row(anatomy: Anatomy, tokenizer: Any, tokens: int, rounds: int) -> common.Row:
    corpus, device = default_corpus(tokenizer, tokens), anatomy.model.device

    def forward(windows: Sequence[Window]) -> ForwardPass:
        execution = Execution(device=device, batch_size="auto")
        return ForwardPass(anatomy, windows, corpus.window, execution, show_progress=False)

    stream = FinalStateStream(corpus=corpus, processes=Processes(), forward=forward)

    def train(ranks: Sequence[int]) -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            trainer_of(anatomy.head, ranks).train(stream, tokens // 2, seed=0)

    def apart() -> None:
        for rank in RANKS:
            train((rank,))

    times = common.interleaved({"together": lambda: train(RANKS), "apart": apart}, rounds)
    return common.Row(
        f"(a) training, {tokens} tokens in 2 steps: ten ranks in one pass | in ten",
        f"{min(times['together']):.2f} s",
        f"{min(times['apart']):.2f} s",
        common.ratio(times["together"], times["apart"]),
        at_most=0.4,
    )


def peak_memory(device: str, ranks: Sequence[int], tokens: int, documents: Sequence[str]) -> float:
    """Return the peak of a whole run of the probe in MiB. Called in a child process."""
    common.silence()
    tokenizer = transformers.AutoTokenizer.from_pretrained(common.smollm2())
    asked = {"ranks": ranks, "train_tokens": tokens, "batch_tokens": tokens // 2, "max_tokens": tokens}
    measured(load_model(device), ["rank_head"], tokenizer=tokenizer, corpus=documents, **asked)
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else _kibibytes("VmHWM") / 2**10


def memory_row(device: str, tokens: int) -> common.Row:
    documents = common.documents(2 * tokens + 100)
    ours, largest = (common.in_child(peak_memory, device, ranks, tokens, documents) for ranks in (RANKS, RANKS[-1:]))
    label = f"(b) peak memory, MiB: ten ranks | rank {RANKS[-1]} alone"
    return common.Row(label, f"{ours:.0f}", f"{largest:.0f}", ours / largest, at_most=1.5)


def floor_row(head: Head, tokens: int, rounds: int) -> common.Row:
    (rows, width), device = head.weight_VD.shape, head.weight_VD.device
    states_ND = torch.randn(tokens, width, device=device)
    targets_N = torch.randint(rows, (tokens,), device=device)
    trainer = trainer_of(head, RANKS)

    def step() -> None:
        trainer.step(states_ND, targets_N, tokens, 1.0)
        if device.type == "cuda":
            torch.cuda.synchronize()

    step()
    best = min(common.seconds(step) for _ in range(rounds))
    # The logits, the gradient of what the narrow factor makes of the states, and that of the tall factor.
    shapes = [s for r in RANKS for s in ((tokens, r, rows), (tokens, rows, r), (rows, tokens, r))]
    needed = sum(product_seconds(shape, device) for shape in shapes)
    flops = 6 * rows * sum(RANKS) * tokens
    return common.Row(
        f"(c) a step of {tokens} tokens | its {flops / 1e12:.2f} TFLOP at {flops / needed / 1e9:.0f} GFLOP/s",
        f"{best:.2f} s",
        f"{needed:.2f} s ({needed / best:.0%})",
        best / needed,
        at_most=2.0 if device.type == "cuda" else None,
    )


# (d): truncation.


class WeightedHeads(RankHeadProbe):
    """The probe with its weighted heads alone. An instance prepares once, and then measures as often as one likes."""

    def prepare(self, context: lmsat_plugin.ProbeContext) -> None:
        if not hasattr(self, "truncations"):
            prepare = super().prepare
            self.seconds = common.seconds(lambda: prepare(context))
            del self.truncations["truncated"], self.expanded["truncated"]


def truncation_rows(model: Any, tokenizer: Any, tokens: int, metric: int, rounds: int) -> list[common.Row]:
    asked = {"tokenizer": tokenizer, "corpus": common.documents(tokens + metric), "max_tokens": tokens}
    probe = WeightedHeads()
    found: dict[str, float] = {}
    runs = {
        "loss": lambda: measured(model, ["loss"], **asked),
        "ours": lambda: found.update(measured(model, [probe], **asked).metrics),
    }
    times = common.interleaved(runs, rounds)
    times["ours"][0] -= probe.seconds  # only the first prepares
    loss, ours = min(times["loss"]), min(times["ours"])
    share = DEFAULT_TOKENS / tokens
    whole = ours * share + probe.seconds
    width = model.config.hidden_size
    full, own = found[f"rank_head/weighted_truncated_loss_rank_{width}"], found["rank_head/full_loss"]

    def row(quantity: str, a: float, b: float, value: float) -> common.Row:
        return common.Row(quantity, f"{a:.1f} s", f"{b:.1f} s", value, at_most=2.0)

    same = f"(d) weighted truncated heads of {len(probe.ranks)} ranks, {tokens} tokens | loss alone"
    scaled = f"    at {DEFAULT_TOKENS} tokens, scaled, and {probe.seconds:.1f} s for the metric of {metric}"
    return [
        row(same, ours, loss, common.ratio(times["ours"], times["loss"])),
        row(scaled, whole, loss * share, whole / (loss * share)),
        common.Row(
            f"    loss at rank {width} | the model's own, nats: difference",
            f"{full:.8f}",
            f"{own:.8f}",
            abs(full - own),
            at_most=1e-5,
        ),
    ]


# (e): tokens.


def best_model(source: MarkovSource, width: int) -> Any:
    """Return a model that sees one token, its embeddings and head fitted to the source's very distribution."""
    rows = source.vocabulary + 1
    joint_VV = np.zeros((rows, rows))
    joint_VV[:-1, :-1] = source.probabilities * source.stationary[:, None]
    joint_VV[-1, :-1] = source.stationary / DOCUMENT
    joint = torch.from_numpy(joint_VV / joint_VV.sum()).float()
    torch.manual_seed(0)
    shape = {"vocab_size": rows, "hidden_size": width, "intermediate_size": width}
    config = transformers.LlamaConfig(**shape, num_hidden_layers=1, num_attention_heads=4)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).requires_grad_(False)
    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    block = model.model.layers[0]
    for weight in (block.self_attn.o_proj.weight, block.mlp.down_proj.weight):
        weight.zero_()
    torch.nn.init.normal_(embeddings)
    fitted = [weight.requires_grad_() for weight in (embeddings, head)]
    steps = 1_000
    optimiser = torch.optim.Adam(fitted, lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, 1e-4)
    for _ in range(steps):
        logits = model.lm_head(model.model.norm(embeddings))
        (-(joint * logits.log_softmax(-1)).sum()).backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    return model.requires_grad_(False).eval()


def token_rows(tokens: int, folder: Path) -> list[common.Row]:
    source = MarkovSource.make(512, rank=64)
    model = best_model(source, 32)
    text = folder / "markov.jsonl"
    documents = source.documents(-(-tokens // DOCUMENT), DOCUMENT, seed=1)
    text.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents), "utf-8")
    asked = {"tokenizer": source.tokenizer(), "corpus": list(source.documents(50, DOCUMENT, seed=2))}
    asked |= {"max_tokens": None, "train_corpus": str(text)}

    def losses(**settings: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the held-out loss and the learning rate of each rank; a head that diverged has an infinite loss."""
        outcome = measured(model, ["rank_head"], **asked, **settings)
        rates, ranks = (outcome.arrays[f"rank_head/{name}"] for name in ("learning_rates", "ranks"))
        found = [outcome.metrics.get(f"lmsat_rank_head/loss_rank_{rank}", math.inf) for rank in ranks]
        return np.array(found), rates

    default, rates = losses(init="normal", train_tokens=tokens)
    others = [
        losses(init="normal", train_tokens=tokens, learning_rate=list(rates * factor))[0] for factor in RATE_FACTORS[1:]
    ]
    rivals = {"default rates": default, f"best of {len(RATE_FACTORS)} rates": np.min([default, *others], 0)}
    reached = {name: np.full(len(default), math.inf) for name in rivals}
    tenth = {name: np.full(len(default), math.nan) for name in rivals}
    for share in SHARES:
        ours, _ = losses(init="svd", train_tokens=round(share * tokens))
        for name, theirs in rivals.items():
            reached[name] = np.minimum(reached[name], np.where(ours <= theirs, share, math.inf))
            if share == 0.1:
                tenth[name] = ours - theirs
        if share >= 0.1 and all(np.isfinite(shares).all() for shares in reached.values()):
            break
    return [
        common.Row(
            f"(e) tokens of svd | normal, {name}, worst of {len(default)} ranks; "
            f"with a tenth {tenth[name].max():+.4f} nats",
            f"{reached[name].max() * tokens:,.0f}",
            f"{tokens:,}",
            reached[name].max(),
            at_most=0.1,
        )
        for name in rivals
    ]


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    rounds = 1 if quick else 2
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as name:
        os.environ["LMSAT_CACHE"] = name
        rows = [memory_row(device, 256 if quick else 2_048)]
        model, tokenizer = load_model(device), transformers.AutoTokenizer.from_pretrained(common.smollm2())
        anatomy = dissect(model, torch.arange(16))
        rows.insert(0, together_row(anatomy, tokenizer, 128 if quick else 1_024, rounds))
        rows.append(floor_row(anatomy.head, 128 if quick else 1_024, rounds))
        rows += truncation_rows(model, tokenizer, *((512, 1_200) if quick else (8_000, 16_384)), rounds)
        rows += token_rows(20_500 if quick else 500_000, Path(name))
    return common.report(f"Rank-restricted LM heads on {device}; ratio = lmsat / rival", rows)


if __name__ == "__main__":
    raise SystemExit(main())
