"""Averaging five checkpoints, against reading and hashing their files, which a sweep of the five does anyway.

Five checkpoints of SmolLM2-135M's shape with random weights in bfloat16. To reach: 1.5 times the time of reading and
hashing the five, and no more memory than two models in float32 (the process' peak, above what it takes before).
"""

from __future__ import annotations

import resource
import shutil
import tempfile
from pathlib import Path

import common
import torch
import transformers

from lmsat_plugin.conversion.averages import average_checkpoints
from lmsat_plugin.sweeps.weights import read_ahead

COUNT = 5


def make(folder: Path, *, quick: bool) -> list[Path]:
    """Write the checkpoints."""
    config = transformers.LlamaConfig(**common.SMOLLM2_135M | ({"num_hidden_layers": 2} if quick else {}))
    folders = []
    for seed in range(COUNT):
        torch.manual_seed(seed)
        folders.append(folder / f"step{seed}")
        transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folders[-1])
    return folders


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folders = make(root, quick=quick)
        size = sum(path.stat().st_size for path in folders[0].glob("*.safetensors"))

        def averaged() -> None:
            shutil.rmtree(root / "average", ignore_errors=True)
            average_checkpoints(folders, root / "average")

        def hashed() -> None:
            for folder in folders:
                read_ahead(folder)

        before = peak_bytes()
        times = common.interleaved({"averaged": averaged, "hashed": hashed}, 3)
        # The files' pages that are mapped count, too: the system takes them back when it needs them.
        memory = (peak_bytes() - before) / (2 * size)
    best = {name: min(values) for name, values in times.items()}
    rows = [
        common.Row(
            f"average of {COUNT} | reading and hashing them",
            f"{best['averaged']:.2f} s",
            f"{best['hashed']:.2f} s",
            common.ratio(times["averaged"], times["hashed"]),
            at_most=1.5,
        ),
        common.Row("peak memory | a model in float32", f"{memory * 2 * size / 1e6:.0f} MB", "", memory, at_most=2),
    ]
    return common.report("Averages of checkpoints; ratio = lmsat / rival", rows)


if __name__ == "__main__":
    raise SystemExit(main())
