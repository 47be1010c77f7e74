"""lmsat on a GPU beside ``hf`` and bare passes; skipped without one. A few minutes on one GPU.

Models of SmolLM2-135M's and Pythia-1b's shape with random weights, in bfloat16; nothing is downloaded.

(a) ``loglikelihood_rolling`` against ``hf`` (softmax in float32) at the fastest of its batch sizes. To reach: 0.5.
(b) the glob ``lmsat_*`` in lm-eval at its defaults against a bare pass of as many tokens. To reach: 3.
(c) a downstream task (four options after a few-shot prompt) against ``hf``, through lm-eval's ``simple_evaluate``.
(d) the share of the pass' GPU time that is in matrix products, by the profiler, and how often it waits for the GPU.
(e) the loss by tiles of logits: 8,192 × 8,192, which lmsat takes, and smaller ones that stay in the GPU's cache.
(f) the float64 decompositions of a head on the GPU and on the CPU.
(g) weights of the next checkpoint: ``load_weights`` against a fresh load.

``LMSAT_BENCH_DEVICE=cpu`` with ``--quick`` tries the script itself without a GPU.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
import torch
import transformers
from one_pass import default_corpus
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "helpers"))
from quiz import write_quiz

from lmsat_plugin.measurement.execution import Execution
from lmsat_plugin.measurement.forward import ForwardPass, PassCallbacks
from lmsat_plugin.model import cross_entropy
from lmsat_plugin.model.anatomy import dissect
from lmsat_plugin.model.cross_entropy import token_losses
from lmsat_plugin.model.lm_head import Head
from lmsat_plugin.model.spectrum import decompose, triangle

if TYPE_CHECKING:
    from collections.abc import Callable

DEVICE = os.environ.get("LMSAT_BENCH_DEVICE", "cuda")
PRODUCTS = ("gemm", "cutlass", "nvjet", "xmma", "sm90_", "::mm", "::addmm", "::bmm", "cublas")
# The profiler itself calls cudaDeviceSynchronize.
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense", "aten::nonzero")
TILES = ((8192, 8192), (4096, 4096), (2048, 4096), (2048, 8192))


def shapes(quick: bool) -> dict[str, transformers.PretrainedConfig]:
    """Return the configurations of the models by name; with ``quick`` small ones."""
    small = {"num_hidden_layers": 2, "vocab_size": 4096} if quick else {}
    smollm2 = transformers.LlamaConfig(**{**common.SMOLLM2_135M, "bos_token_id": 0, "eos_token_id": 0, **small})
    pythia = transformers.GPTNeoXConfig(
        **{
            **{"vocab_size": 50_304, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16},
            **{"num_attention_heads": 8, "max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 0},
            **small,
            **({"hidden_size": 256, "intermediate_size": 512} if quick else {}),
        }
    )
    return {"SmolLM2-135M's shape": smollm2, "Pythia-1b's shape": pythia}


def tokenizer() -> transformers.PreTrainedTokenizerBase:
    """Return a byte-level tokenizer of 4,096 tokens, trained on the corpus ``sample``."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(common.documents()[:200], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|endoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )


def saved(name: str, config: transformers.PretrainedConfig, seed: int, folder: Path) -> str:
    """Save a random model in bfloat16 with the tokenizer, and return its folder."""
    torch.manual_seed(seed)
    place = folder / f"{name.split(chr(39))[0]}-{seed}"
    with torch.device(DEVICE):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(place)
    tokenizer().save_pretrained(place)
    return str(place)


def wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def timed(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time functions in turns, each once before, and each until the GPU is done."""

    def to_the_end(function: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                function()
            wait()

        return run

    ended = {name: to_the_end(function) for name, function in functions.items()}
    for function in ended.values():
        function()
    return common.interleaved(ended, rounds)


def row(quantity: str, times: dict[str, list[float]], ours: str, theirs: str, at_most: float | None = None) -> Any:
    return common.Row(
        quantity,
        f"{min(times[ours]):.3f} s",
        f"{min(times[theirs]):.3f} s",
        common.ratio(times[ours], times[theirs]),
        at_most=at_most,
    )


def rolling(name: str, folder: str, quick: bool) -> list[common.Row]:
    """(a) The loss of texts, against ``hf`` at its fastest batch size."""
    arguments = {"dtype": "bfloat16", "device": DEVICE}
    tokens = 2_000 if quick else 60_000
    texts, taken = [], 0
    for text in common.documents():
        texts.append(text)
        taken += len(text) // 3
        if taken > tokens:
            break
    requests = common.rolling_requests(texts)
    ours = common.load("lmsat", folder, batch_size=16, **arguments)
    theirs = common.load("hf", folder, batch_size=1, **arguments)
    sizes = (1, 2) if quick else (1, 4, 16)

    def hf(size: int) -> Callable[[], object]:
        def run() -> object:
            theirs.batch_size_per_gpu = size
            return common.rolling(theirs, requests)

        return run

    tried = timed({str(size): hf(size) for size in sizes}, 1)
    best = min(sizes, key=lambda size: tried[str(size)][0])
    times = timed({"lmsat": lambda: common.rolling(ours, requests), "hf": hf(best)}, 3)
    return [row(f"(a) loss, {name} | hf, batch {best}", times, "lmsat", "hf", 0.5)]


def passes(name: str, folder: str, quick: bool) -> list[common.Row]:
    """(b) The glob against a bare pass, and (d) where the time of lmsat's own pass goes."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    from lmsat_autoload import task_folders

    lm = common.load("lmsat", folder, batch_size="auto", dtype="bfloat16", device=DEVICE)
    tokens = 1_000 if quick else 50_000
    metadata = {"max_tokens": tokens}
    manager = TaskManager(include_defaults=False, include_path=task_folders(), metadata=metadata)
    names = manager.match_tasks(["lmsat_*"])
    corpus = default_corpus(lm.tokenizer, tokens)
    anatomy = dissect(lm.model, torch.from_numpy(corpus.windows[0].tokens[:-1]))
    execution = Execution(device=lm.device, batch_size="auto")
    forward = ForwardPass(anatomy, corpus.windows, corpus.window, execution, show_progress=False)
    losses: list[torch.Tensor] = []

    def bare() -> None:
        with torch.no_grad():
            for windows in forward.batches:
                forward._run_batch(windows, PassCallbacks(start=losses.clear, on_losses=lambda kept, _: None))

    def glob() -> object:
        return lm_eval.simple_evaluate(lm, tasks=names, task_manager=manager, bootstrap_iters=0)

    times = timed({"glob": glob, "bare": bare}, 1 if quick else 2)
    share, waits = profile(bare)
    where = "GPU" if DEVICE == "cuda" else "CPU"
    return [
        row(f"(b) lmsat_*, {tokens:,} tokens, {name} | bare pass", times, "glob", "bare", None if quick else 3.0),
        common.Row(f"(d) products' share of the pass' {where} time, {name}", f"{share:.0%}", "-", share),
        common.Row(f"    times that the pass waits for the GPU, {name}", str(waits), "-", float(waits), at_most=0),
    ]


def profile(function: Callable[[], None]) -> tuple[float, int]:
    """Return the share of products in the device's time, and how often the function waits for the device."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if DEVICE == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    wait()
    with torch.profiler.profile(activities=activities) as profiled:
        function()
        wait()
    events = profiled.key_averages()
    if DEVICE == "cuda":
        # The kernels themselves: operations of the CPU are credited with the time of theirs, too.
        kernels = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
        times = {event.key: event.self_device_time_total for event in kernels}
    else:
        times = {event.key: event.self_cpu_time_total for event in events}
    products = sum(spent for name, spent in times.items() if any(part in name.lower() for part in PRODUCTS))
    return products / max(1e-9, sum(times.values())), sum(event.count for event in events if event.key in WAITS)


def downstream(name: str, folder: str, place: Path, quick: bool) -> list[common.Row]:
    """(c) A multiple-choice task with few-shot prompts, against ``hf``."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    quiz = write_quiz(place / "quiz", test=8 if quick else 200)
    manager = TaskManager(include_defaults=False, include_path=[quiz])
    arguments = {"dtype": "bfloat16", "device": DEVICE, "batch_size": 4 if quick else 32}

    def run(model: Any) -> object:
        return lm_eval.simple_evaluate(model, tasks=["quiz"], task_manager=manager, num_fewshot=10, bootstrap_iters=0)

    loaded = {kind: common.load(kind, folder, **arguments) for kind in ("lmsat", "hf")}
    times = timed({kind: lambda model=model: run(model) for kind, model in loaded.items()}, 1 if quick else 2)
    return [row(f"(c) four options after ten shots, {name} | hf", times, "lmsat", "hf")]


def tiles(quick: bool) -> list[common.Row]:
    """(e) The loss of 8,192 tokens under 50,304 rows, by the tile of logits that exists at one time."""
    tokens, width, rows = (256, 64, 5_000) if quick else (8192, 2048, 50_304)
    states_ND = torch.randn(tokens, width, device=DEVICE).bfloat16()
    head = Head(weight_VD=(torch.randn(rows, width, device=DEVICE) / width**0.5).bfloat16())
    targets_N = torch.randint(rows, (tokens,), device=DEVICE)

    def losses(tile: tuple[int, int]) -> Callable[[], object]:
        def run() -> object:
            before = cross_entropy._GPU_TILE, cross_entropy._CPU_TILE
            cross_entropy._GPU_TILE = cross_entropy._CPU_TILE = tile
            try:
                return token_losses(states_ND, targets_N, head)
            finally:
                cross_entropy._GPU_TILE, cross_entropy._CPU_TILE = before

        return run

    product = torch.empty(tokens, rows, dtype=torch.bfloat16, device=DEVICE)
    runs: dict[str, Callable[[], object]] = {str(tile): losses(tile) for tile in TILES}
    runs["product"] = lambda: torch.mm(states_ND, head.weight_VD.T, out=product)
    times = timed(runs, 5)
    return [row(f"(e) loss in tiles of {tile} | the product alone", times, str(tile), "product") for tile in TILES]


def decompositions(quick: bool) -> list[common.Row]:
    """(f) QR and SVD of a head in float64: on the device, and on the CPU."""
    width, rows = (128, 1000) if quick else (2048, 50_304)
    weight_VD = torch.randn(rows, width)
    there, here = weight_VD.to(DEVICE), weight_VD
    triangle_KD = triangle(here)
    on_device = triangle_KD.to(DEVICE)
    runs: dict[str, Callable[[], object]] = {
        "QR there": lambda: triangle(there),
        "QR here": lambda: triangle(here),
        "SVD there": lambda: torch.linalg.svd(on_device),
        "SVD here": lambda: decompose(on_device),
        "eigh there": lambda: torch.linalg.eigh(on_device.T @ on_device),
        "eigh here": lambda: torch.linalg.eigh(triangle_KD.T @ triangle_KD),
    }
    times = timed(runs, 1)
    return [
        row("(f) QR of a head, GPU | CPU", times, "QR there", "QR here"),
        row("    SVD of its triangle, CPU | GPU", times, "SVD here", "SVD there"),
        row("    eigenvectors of a moment, GPU | CPU", times, "eigh there", "eigh here"),
    ]


def loading(name: str, folders: list[str]) -> list[common.Row]:
    """(g) The next checkpoint of a series."""
    lm = common.load("lmsat", folders[0], dtype="bfloat16", device=DEVICE)
    turn = iter(folders * 100)

    def fresh() -> object:
        return transformers.AutoModelForCausalLM.from_pretrained(folders[0], dtype=torch.bfloat16).to(DEVICE)

    times = timed({"weights": lambda: lm.load_weights(next(turn)), "fresh": fresh}, 3)
    return [row(f"(g) load_weights, {name} | a fresh model", times, "weights", "fresh")]


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    if DEVICE == "cuda" and not torch.cuda.is_available():
        print("benchmarks/gpu.py: skipped, no GPU is here")
        return 0
    card = torch.cuda.get_device_name() if DEVICE == "cuda" else "no GPU: the script alone is tried"
    rows: list[common.Row] = []
    place = common.CACHE / "gpu"
    for name, config in shapes(quick).items():
        folders = [saved(name, config, seed, place) for seed in range(2)]
        rows += rolling(name, folders[0], quick)
        rows += passes(name, folders[0], quick)
        rows += downstream(name, folders[0], place, quick)
        rows += loading(name, folders)
    rows += tiles(quick) + decompositions(quick)
    if DEVICE != "cuda":
        # Targets are a GPU's.
        rows = [dataclasses.replace(each, at_most=None) for each in rows]
    return common.report(f"lmsat on {card}, PyTorch {torch.__version__}; ratio = lmsat / rival", rows)


if __name__ == "__main__":
    raise SystemExit(main())
