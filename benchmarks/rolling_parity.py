"""``loglikelihood_rolling`` of ``lmsat`` against lm-eval's ``hf`` with ``softmax_dtype=float32``.

Compared: the log-likelihood of each document, in float32 models, as the largest relative difference. Models:
SmolLM2-135M at ``max_length=512``, with documents longer than the window, and every tiny random architecture of
``tests/conftest.py`` at a window of 64. To reach: 1e-5 at most. ``hf`` runs windows one by one, ``lmsat`` in
padded batches. One more line says which of the two is nearer to a run of the same weights in float64.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
import transformers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


def tiny_models() -> ModuleType:
    """Import the tests' conftest, which makes the tiny models."""
    path = Path(__file__).parent.parent / "tests" / "conftest.py"
    spec = importlib.util.spec_from_file_location("lmsat_tiny_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(kind: str, pretrained: Any, texts: Sequence[str], **arguments: Any) -> list[float]:
    return common.rolling(common.load(kind, pretrained, **arguments), common.rolling_requests(texts))


def differences(values: Sequence[float], reference: Sequence[float]) -> list[float]:
    return [abs(a - b) / abs(b) for a, b in zip(values, reference, strict=True)]


def compare(name: str, ours: Sequence[float], theirs: Sequence[float]) -> common.Row:
    """Return the row of the document that differs most."""
    apart = differences(ours, theirs)
    worst = max(apart)
    place = apart.index(worst)
    label = f"{name}: largest of {len(ours)} documents"
    return common.Row(label, f"{ours[place]:.4f}", f"{theirs[place]:.4f}", worst, at_most=1e-5)


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    texts = common.documents()
    long = [text for text in texts if 4000 < len(text) < 12000][: 1 if quick else 6]
    short = [text for text in texts if 40 < len(text) < 3000][: 5 if quick else 24]
    folder = common.smollm2().as_posix()
    window: dict[str, Any] = {"max_length": 512}
    ours = run("lmsat", folder, long + short, batch_size="auto", **window)
    theirs = run("hf", folder, long + short, batch_size=1, **window)
    exact = run("lmsat", folder, long + short, dtype="float64", **window)
    errors = [max(differences(values, exact)) for values in (ours, theirs)]
    rows = [
        compare("SmolLM2-135M", ours, theirs),
        common.Row("SmolLM2-135M: largest error against float64", *(f"{error:.1e}" for error in errors)),
    ]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder).train_new_from_iterator(texts[:200], 512)
    tiny = tiny_models()
    pieces = [text[: 30 + 37 * index] for index, text in enumerate(texts[: 8 if quick else 40])]
    for name in tiny.ARCHITECTURES:
        model = tiny.make_model(name)
        both = {"tokenizer": tokenizer, "max_length": tiny.WINDOW}
        ours = run("lmsat", model, pieces, batch_size="auto", **both)
        rows.append(compare(name, ours, run("hf", model, pieces, batch_size=1, **both)))
    return common.report("Log-likelihood of documents; ratio = |lmsat - hf| / |hf|", rows)


if __name__ == "__main__":
    raise SystemExit(main())
