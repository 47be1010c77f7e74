"""What the probes of weights, quantisation and noise add to a pass, on SmolLM2-135M in float32.

The rival is a bare pass: a hand-written loop over the same batches, model and loss, nothing else. To reach:

(a) `lmsat-weights`, which needs no text: one bare pass over 50,000 tokens at most. The bare pass is run over the tokens
    of (b), and its time is scaled, which makes it shorter than it is, if anything: windows are as long.
(b) `lmsat-quantization` beside `lmsat_loss`, over 16,384 tokens, at its three widths: 3.3 bare passes over as many at
    most, the loss without a change being that of the shared pass.
(c) `lmsat-weight-noise` likewise, at its three sizes and three draws: 9.5 at most.
(d) memory that (b) takes beyond what `lmsat_loss` takes: two copies of the weights that are changed at most.

What (b) and (c) add is the time with the probe less that of `lmsat_loss` alone.
"""

from __future__ import annotations

from typing import Any

import common
import torch
import transformers
from one_pass import bare_pass, default_batches, default_corpus, quietly_measured

from lmsat_plugin.model.anatomy import dissect
from lmsat_plugin.model.matrices import matrices_of
from lmsat_plugin.text.windows import PaddedBatch

TOKENS = 16_384
OF_WEIGHTS = 50_000


def peak_of(folder: str, probes: tuple[str, ...], tokens: int) -> float:
    """Return how much memory a measurement takes at most above the model's, in MiB; run in a process of its own."""
    common.silence()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    quietly_measured(model, tokenizer, ("loss",), 100)
    return common.peak_mebibytes(lambda: quietly_measured(model, tokenizer, probes, tokens))


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    tokens = 1_000 if quick else TOKENS
    folder = common.smollm2()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    corpus = default_corpus(tokenizer, tokens)
    padded = [PaddedBatch.of(batch) for batch in default_batches(corpus, model.device)]
    anatomy = dissect(model, padded[0].inputs_BT[0, :64])

    def measured(*probes: str) -> Any:
        return quietly_measured(model, tokenizer, probes, tokens)

    loss = measured("loss").metrics["lmsat_loss/loss"]
    if abs(bare_pass(anatomy, padded) / loss - 1) > 1e-6:
        raise SystemExit("the bare pass and lmsat disagree: they do not do the same work")
    runs = {
        "bare": lambda: bare_pass(anatomy, padded),
        "loss": lambda: measured("loss"),
        "weights": lambda: measured("weights"),
        "quantization": lambda: measured("loss", "quantization"),
        "weight_noise": lambda: measured("loss", "weight_noise"),
    }
    time = {name: min(values) for name, values in common.interleaved(runs, 2 if quick else 1).items()}
    plain, quantised = (
        common.in_child(peak_of, str(folder), probes, min(tokens, 2048))
        for probes in (("loss",), ("loss", "quantization"))
    )
    copies = sum(4 * matrix.weight_OI.numel() for matrix in matrices_of(model) if matrix.is_linear) / 2**20
    scaled = time["bare"] * OF_WEIGHTS / corpus.n_tokens
    rows = [
        common.Row(
            f"(a) lmsat-weights | bare pass, {OF_WEIGHTS} tokens",
            f"{time['weights']:.1f} s",
            f"{scaled:.1f} s (scaled)",
            time["weights"] / scaled,
            at_most=1,
        )
    ]
    for letter, name, limit in (("b", "quantization", 3.3), ("c", "weight_noise", 9.5)):
        added = time[name] - time["loss"]
        rows.append(
            common.Row(
                f"({letter}) lmsat-{name.replace('_', '-')} | bare pass",
                f"{added:.1f} s",
                f"{time['bare']:.1f} s",
                added / time["bare"],
                # What does not grow with the text is most of it where that is short.
                at_most=None if quick else limit,
            )
        )
    rows.append(
        common.Row(
            "(d) memory of lmsat-quantization | changed weights",
            f"{quantised - plain:.0f} MiB",
            f"{copies:.0f} MiB",
            (quantised - plain) / copies,
            at_most=2,
        )
    )
    return common.report(f"Weights and changed weights, {corpus.n_tokens} tokens; ratio = lmsat / rival", rows)


if __name__ == "__main__":
    raise SystemExit(main())
