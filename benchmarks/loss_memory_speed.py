"""The loss of ``lmsat`` against that of lm-eval's ``hf`` with ``softmax_dtype=float32``: memory, then speed.

Memory: the peak above the loaded model of ``loglikelihood_rolling`` over 16 windows of 2,048 tokens in batches
of 16 and a vocabulary of 50,304, on a 2-layer GPT-NeoX of width 256, each in a process of its own. To reach: a
quarter of ``hf`` at most.

Speed: the same requests, ``lmsat`` with ``batch_size=auto`` against ``hf`` at the fastest of its batch sizes, as
hf / lmsat. To reach: 1.0 on SmolLM2-135M and more than 1 on the small model on a CPU, 2 on a GPU (in bfloat16).
"""

from __future__ import annotations

import functools
import gc
from typing import TYPE_CHECKING, Any

import common
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH_SIZES = {"cpu": (1, 4, 16), "cuda": (1, 2, 4, 8, 16, 32)}
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}


def peak_memory(kind: str, folder: str, device: str, batch: int, length: int) -> float:
    """Return the peak above the loaded model in MiB. Called in a child process."""
    common.silence()
    model = common.load(kind, folder, device=device, dtype=DTYPES[device], batch_size=batch, max_length=length)
    tokens = torch.randint(100, 40000, (batch, length), generator=torch.Generator().manual_seed(0))
    # The windows are made of tokens, not of text: each is full.
    model.tok_encode = lambda text, *_, **__: tokens[int(text)].tolist()
    requests = common.rolling_requests([str(row) for row in range(batch)])
    if device == "cuda":
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        common.rolling(model, requests)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    return common.peak_mebibytes(lambda: common.rolling(model, requests))


def memory_row(device: str, batch: int, length: int) -> common.Row:
    folder = common.wide_vocabulary().as_posix()
    ours, theirs = (common.in_child(peak_memory, kind, folder, device, batch, length) for kind in ("lmsat", "hf"))
    label = f"{device}: peak memory of {batch} x {length} tokens, MiB"
    return common.Row(label, f"{ours:.0f}", f"{theirs:.0f}", ours / theirs, at_most=0.25)


def fastest_batch_size(run_hf: Callable[[int], object], device: str) -> int:
    """Return the batch size that is fastest in the better of two interleaved rounds."""
    runs = {str(size): functools.partial(run_hf, size) for size in BATCH_SIZES[device]}
    times = common.interleaved(runs, rounds=2)
    return int(min(times, key=lambda size: min(times[size])))


def speed_row(name: str, folder: str, device: str, tokens: int, rounds: int, target: float) -> common.Row:
    requests = common.rolling_requests(common.documents(tokens))
    both: dict[str, Any] = {"device": device, "dtype": DTYPES[device], "max_length": common.WINDOW}
    ours = common.load("lmsat", folder, batch_size="auto", **both)
    hf = common.load("hf", folder, batch_size=1, **both)

    def run_hf(size: int) -> None:
        hf.batch_size_per_gpu = size
        common.rolling(hf, requests)

    common.rolling(ours, requests[:1])
    common.rolling(hf, requests[:1])
    best = fastest_batch_size(run_hf, device)
    times = common.interleaved({"lmsat": lambda: common.rolling(ours, requests), "hf": lambda: run_hf(best)}, rounds)
    return common.Row(
        f"{device}: time on {name}, {tokens} tokens, s",
        f"{min(times['lmsat']):.2f}",
        f"{min(times['hf']):.2f} (batch {best})",
        common.ratio(times["hf"], times["lmsat"]),
        at_least=target,
    )


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    smol, wide = common.smollm2().as_posix(), common.wide_vocabulary().as_posix()
    rows = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        gpu = device == "cuda"
        rows.append(memory_row(device, *((4, 512) if quick else (16, 2048))))
        tokens, rounds = (2_000, 2) if quick else (200_000 if gpu else 10_000, 4)
        rows.append(speed_row("SmolLM2-135M", smol, device, tokens, rounds, 2.0 if gpu else 1.0))
        rows.append(speed_row("the small model", wide, device, tokens, rounds, 2.0 if gpu else 1.0))
    return common.report("The loss; ratio = lmsat / hf for memory, hf / lmsat for time", rows)


if __name__ == "__main__":
    raise SystemExit(main())
