"""What averaging checkpoints does to the fit of a scaling law, on a small series trained with and without annealing.

Models of seven widths learn a language of known entropy rate, each token seen once:

- annealed: a training of its own to each of four numbers of tokens, the learning rate falling to a tenth of its peak
  along a cosine. The others are compared with these. The peak is about the best for them.
- constant: one training with that learning rate after a warm-up, read at these four numbers.
- mid-schedule: the longest annealed training, read at them.

Of the last two the means of five checkpoints, too, which lie in the last fifth before each number. All are swept with
`lmsat_loss`, and each kind is fitted with L = E + A/N^alpha + B/D^beta, as ``lmsat fit chinchilla`` does. The table for
docs/scaling.md is printed. About nine minutes of CPU; ``python benchmarks/averaged_fits.py [FOLDER]`` keeps the
trainings and the results in a folder, and goes on with what is there.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch

import lmsat_plugin
from lmsat_plugin.analysis import fit
from lmsat_plugin.demo import Demonstration, Training, known_language, write_corpus

WIDTHS = (8, 12, 16, 24, 32, 48, 64)
STEPS = (100, 200, 400, 800)
LAST_FIFTH = (0.8, 0.85, 0.9, 0.95, 1)
CONTEXT, BATCH = 128, 8
KINDS = {
    "annealed": "annealed to each D",
    "constant": "constant learning rate",
    "constant, averaged": "constant learning rate, means of 5",
    "midway": "mid-schedule",
    "midway, averaged": "mid-schedule, means of 5",
}


def train(root: Path) -> list[str]:
    """Train what is not there; return the file of the held-out text."""
    source = known_language()
    tokenizer = source.tokenizer()
    tokens = torch.from_numpy(source.sample(STEPS[-1] * BATCH * (CONTEXT - 1), seed=1)).view(-1, CONTEXT - 1)
    rows = torch.nn.functional.pad(tokens, (1, 0), value=tokenizer.bos_token_id)
    held_out = list(source.documents(400, CONTEXT - 1, seed=3))
    write_corpus(held_out, root / "held_out.jsonl")
    every = sorted({round(part * step) for step in STEPS for part in LAST_FIFTH})
    trainings = [("constant", 1.0, every), *((f"annealed{step}", 0.1, [step]) for step in STEPS[:-1])]
    trainings.append(("midway", 0.1, every))
    for name, last_rate, steps in trainings:
        shape: dict[str, Any] = {"layers": 2, "context": CONTEXT, "batch": BATCH}
        series = Demonstration(config="", trainings=(), tokenizer=tokenizer, held_out=held_out, steps=steps, **shape)
        for width in WIDTHS:
            folder = root / name / f"w{width}"
            if (folder / f"step{steps[-1]}").exists():
                continue
            training = Training(name=name, width=width, rows=rows, learning_rate=0.1 / width**0.5, last_rate=last_rate)
            for _ in series.train(training, folder):
                pass
    return str(root / "held_out.jsonl")


def measure(root: Path, text: str) -> dict[str, Any]:
    """Return the results of each kind of losses."""

    def models(name: str, *revisions: str) -> list[dict[str, Any]]:
        entry = {"revisions": list(revisions), "tokens_per_step": CONTEXT * BATCH}
        return [{"pretrained": str(root / name / f"w{width}"), "name": f"w{width} {name}", **entry} for width in WIDTHS]

    ends = [f"step{step}" for step in STEPS]
    means = [f"average:{len(LAST_FIFTH)}@{end}" for end in ends]
    series = {
        "annealed": [
            *(model for step in STEPS[:-1] for model in models(f"annealed{step}", f"step{step}")),
            *models("midway", ends[-1]),
        ],
        "constant": models("constant", *ends),
        "constant, averaged": models("constant", *means),
        "midway": models("midway", *ends),
        "midway, averaged": models("midway", *means),
    }
    return {
        kind: lmsat_plugin.sweep(own, ["lmsat_loss"], corpus=text, output=root / "results" / kind.replace(", ", "-"))
        for kind, own in series.items()
    }


def losses(results: Any) -> dict[tuple[int, int], float]:
    table = results.table[results.table.metric == "loss"]
    return dict(zip(zip(table.n_params, table.step, strict=True), table.value, strict=True))


def extrapolated(results: Any, annealed: Any) -> float:
    """Return by how much the annealed losses at the largest D lie above a law that is fitted to smaller D."""
    columns = ["model", "step", "n_params", "tokens", "loss"]
    rows, those = (
        one.table[one.table.metric == "loss"].rename(columns={"value": "loss"})[columns] for one in (results, annealed)
    )
    law = fit("chinchilla", rows[rows.step < STEPS[-1]], repetitions=0)
    return float(law.predict(those[those.step == STEPS[-1]]).rows.gap.mean())


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    common.silence()
    torch.set_num_threads(1)
    results = measure(root, train(root))
    finished = losses(results["annealed"])
    print(f"\nentropy rate of the language: {known_language().entropy_rate:.3f} nats\n")
    header = ("losses", "above the annealed", "at each D", "E", "alpha", "beta", "the annealed lie", "extrapolated")
    print("| " + " | ".join(header) + " |\n" + "| --- " * len(header) + "|")
    for kind, words in KINDS.items():
        own = losses(results[kind])
        gaps = {key: own[key] / loss - 1 for key, loss in finished.items()}
        at_each = [np.mean([gap for (_, step), gap in gaps.items() if step == own_step]) for own_step in STEPS]
        law = fit("chinchilla", results[kind])
        constants = [law.params[name] for name in ("E", "alpha", "beta")]
        shown = [
            f"{one.value:.3g}" + (f" ({one.low:.3g} to {one.high:.3g})" if one.low is not None else "")
            for one in constants
        ]
        predicted = law.predict(results["annealed"]).rows
        cells = [
            words,
            f"{100 * np.mean(list(gaps.values())):+.2f} %",
            ", ".join(f"{100 * gap:+.2f}" for gap in at_each),
            *shown,
            f"{100 * predicted.gap.mean():+.2f} %",
            f"{100 * extrapolated(results[kind], results['annealed']):+.2f} %",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
