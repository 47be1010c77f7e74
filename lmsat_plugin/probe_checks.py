"""Try a probe on a tiny model: its values may not depend on batches, processes, or a pass that begins again."""

from __future__ import annotations

import functools
import importlib
import json
import logging
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.lazy import torch
from lmsat_plugin.measurement import forward
from lmsat_plugin.measuring import measure
from lmsat_plugin.probe import FORWARD, Probe
from lmsat_plugin.probe_files import read_probes, source_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WINDOW = 64
_TOKENS = 1500
_SECONDS = 120.0
_RELATIVE, _ABSOLUTE = 1e-6, 1e-9
_UPDATES = ("update_hidden", "update_final", "update_losses", "update_predictions")
_CHILD = "import sys; from lmsat_plugin.probe_checks import measure_share; measure_share(sys.argv[1])"


class WrongProbeError(LmsatError):
    """A probe whose values depend on what they must not depend on."""

    exit_code = 1


@dataclass(frozen=True)
class ProbeValues:
    """What a probe has returned."""

    metrics: Mapping[str, float | None]
    arrays: Mapping[str, np.ndarray]


def tiny_model() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a random GPT-NeoX of two layers in float64 and a tokenizer of bytes, always the same.

    >>> model, tokenizer = lmsat_plugin.tiny_model()
    >>> len(tokenizer), model.config.num_hidden_layers
    (257, 2)
    """
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(alphabet, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token=end, eos_token=end)
    config = transformers.GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=_WINDOW,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.GPTNeoXForCausalLM(config).double()
    with torch.no_grad():
        for weight in model.parameters():
            # As they are made, all tokens would be as likely.
            if weight.ndim == 2:
                weight.mul_(8)
    return model.eval(), tokenizer


def check_probe(probe: Probe) -> dict[str, float | None]:
    """Measure a tiny model with a probe in several ways; return its metrics, which are the same in all.

    It is measured twice in one batch, in many, on two processes, and with a pass that runs out of memory and begins
    again. Values may differ by 1e-6 of themselves.

    Raises:
        LmsatError: If the probe raises, returns what is no measurement or not finite, changes what it measures, or
            returns other values in one of these ways. The sentence says which value, and what to do.

    >>> from lmsat_plugin.probes.head import HeadProbe
    >>> sorted(lmsat_plugin.check_probe(HeadProbe()))[:2]
    ['condition_number', 'effective_rank']
    """
    name = probe.name
    whole = _measure(probe, 1000)
    for metric, value in whole.metrics.items():
        if value is not None and not np.isfinite(value):
            raise WrongProbeError(
                f"the probe '{name}' returns {metric} = {value}: return a number, or None with its reason in "
                "details['reasons']"
            )
    compare = functools.partial(_compare, name)
    compare(whole, _measure(probe, 1000), "it is measured again", "draw nothing at random without a seed")
    sums = "keep sums (lmsat_plugin.Sums) over the tokens, and divide them once, in finish"
    compare(whole, _measure(probe, 1), "the text comes in many batches", sums)
    if probe.needs & FORWARD:
        with _memory_runs_out():
            disturbed = _measure(probe, 4, after_update=_out_of_memory_once())
        what = "a pass runs out of memory and begins again"
        compare(whole, disturbed, what, "make all that it adds to in start, and nothing in __init__")
    first, second = _on_two_processes(probe)
    compare(whole, first, "two processes share the text", sums)
    compare(first, second, "it runs on the second of two processes", "return sums over all of them")
    return dict(whole.metrics)


def _documents() -> list[str]:
    """Return texts of very different lengths, twice as much as is measured: probes may train on the rest."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(1, 9))) for _ in range(300)]
    lengths = [1, 2, 90, 5, 30, 1, 60, 12, 3, 120, 8, 40] * 2
    return [" ".join(draw.choices(words, k=length)) for length in lengths]


def _measure(probe: Probe, batch_size: int, after_update: Any = None) -> ProbeValues:
    """Measure with a new probe of the same settings."""
    model, tokenizer = tiny_model()
    text = {"corpus": _documents(), "tokenizer": tokenizer, "max_tokens": _TOKENS}
    try:
        fresh = type(probe)(probe.settings)
        if after_update is not None:
            for method in _UPDATES:
                setattr(fresh, method, _followed(getattr(fresh, method), after_update))
        outcome = measure(model, [fresh], batch_size=batch_size, **text)
    except LmsatError:
        raise
    except Exception as error:
        raise WrongProbeError(
            f"the probe '{probe.name}' raised {type(error).__name__} ({first_sentence(error)}): correct it; "
            "LMSAT_DEBUG=1 shows where"
        ) from error
    measured = outcome.measurements[probe.name]
    return ProbeValues(measured.metrics, measured.arrays)


def _followed(update: Any, after: Any) -> Any:
    def call(*arguments: Any) -> None:
        update(*arguments)
        after()

    return call


def _out_of_memory_once() -> Any:
    calls = 0

    def after() -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise torch.OutOfMemoryError("as if memory had run out")

    return after


@contextmanager
def _memory_runs_out() -> Iterator[None]:
    """Leave out the warning that the pass begins again."""
    before = forward.logger.level
    forward.logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        forward.logger.setLevel(before)


def _compare(probe: str, expected: ProbeValues, found: ProbeValues, what: str, remedy: str) -> None:
    """Raise `WrongProbeError` for the first value that is another."""
    for kind in ("metrics", "arrays"):
        one, other = getattr(expected, kind), getattr(found, kind)
        if one.keys() != other.keys():
            names = ", ".join(sorted(one.keys() ^ other.keys()))
            raise WrongProbeError(f"the probe '{probe}' returns other {kind} where {what} ({names}): return the same")
        for name, value in one.items():
            if not _same(value, other[name]):
                pair = f": {value!r} and {other[name]!r}" if kind == "metrics" else ""
                raise WrongProbeError(f"the probe '{probe}' gives another {name} where {what}{pair}; {remedy}")


def _same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    if np.shape(one) != np.shape(other):
        return False
    return bool(np.allclose(other, one, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True))


def _on_two_processes(probe: Probe) -> list[ProbeValues]:
    """Measure on two processes of this machine, as a launch with torchrun does."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
        free.close()
        running = []
        for rank in range(2):
            told = {**_described(probe), "rank": rank, "port": port, "answer": str(Path(folder, str(rank)))}
            running.append(_start(json.dumps(told)))
        deadline = time.monotonic() + _SECONDS
        try:
            # One that fails leaves the other waiting.
            while any(each.poll() is None for each in running) and not any(each.poll() for each in running):
                if time.monotonic() > deadline:
                    raise WrongProbeError(
                        f"the probe '{probe.name}' waits for ever where two processes share the text: "
                        "let each call Sums.totals as often as the other"
                    )
                time.sleep(0.02)
        finally:
            for each in running:
                if each.poll() is None:
                    each.kill()
                each.wait()
        answers = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("[01]"))]
    if error := next((answer["error"] for answer in answers if "error" in answer), None):
        raise WrongProbeError(f"two processes share the text, and {error}")
    if len(answers) < 2:
        raise WrongProbeError(f"one of two processes ended while it measured with the probe '{probe.name}'")
    return [
        ProbeValues(answer["metrics"], {name: np.array(value) for name, value in answer["arrays"].items()})
        for answer in answers
    ]


def _described(probe: Probe) -> dict[str, Any]:
    """Return what another process makes the same probe of."""
    kind = type(probe)
    file, module = source_of(kind), sys.modules.get(kind.__module__)
    if file is None and (kind.__module__ == "__main__" or getattr(module, kind.__qualname__, None) is not kind):
        raise LmsatError(f"the probe '{probe.name}' is not defined in a file: save it in one to check it")
    return {
        "file": file and str(file),
        "module": kind.__module__,
        "class": kind.__qualname__,
        "settings": probe.settings.model_dump(mode="json"),
        "path": sys.path,
    }


def _start(told: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, told],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def measure_share(told: str) -> None:
    """Measure as one of two processes, and write the values, or the sentence of an error, into a file."""
    task = json.loads(told)
    sys.path[:] = task["path"]
    answer: dict[str, Any]
    try:
        torch.distributed.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{task['port']}", rank=task["rank"], world_size=2
        )
        if task["file"]:
            [kind] = [one for one in read_probes(Path(task["file"])) if one.__qualname__ == task["class"]]
        else:
            kind = getattr(importlib.import_module(task["module"]), task["class"])
        values = _measure(kind(kind.settings_type(**task["settings"])), 4)
        arrays = {name: value.tolist() for name, value in values.arrays.items()}
        answer = {"metrics": dict(values.metrics), "arrays": arrays}
    except Exception as error:
        answer = {"error": first_sentence(error)}
    path = Path(task["answer"])
    path.with_suffix(".part").write_text(json.dumps(answer))
    path.with_suffix(".part").rename(path)
    # One that ended would end the other, too, where this waits for it.
    deadline = time.monotonic() + _SECONDS
    while "error" not in answer and not path.with_name(str(1 - task["rank"])).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    # Without a word to the other, which may have ended.
    os._exit(int("error" in answer))
