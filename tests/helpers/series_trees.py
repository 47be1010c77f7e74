"""Result files of published series, as plain lm-eval writes them: stages, seeds, words, tokens, indices."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from result_files import new, write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

STDERR = 0.004
B = 10**9


def write_checkpoint(root: Path, model: str, revision: str, loss: float, **more: float | str) -> Path:
    """Write the result file of one checkpoint. ``more``: ``n_params``, ``sha``, ``acc``, ``anisotropy``, ``folder``."""
    results = {"lmsat_loss": {"alias": "lmsat_loss", "loss,none": loss, "loss_stderr,none": STDERR}}
    probes = {"loss": {"version": 1, "settings": {}, "reads_corpus": True}}
    if "anisotropy" in more:
        results["lmsat_anisotropy"] = {"anisotropy_last,none": more["anisotropy"]}
        probes["anisotropy"] = {"version": 1, "settings": {}, "reads_corpus": True}
    if "acc" in more:
        results["piqa"] = {"alias": "piqa", "sample_len": 1838, "acc,none": more["acc"], "acc_stderr,none": 0.011}
    size = int(more.get("n_params", 10**8))
    notes = {
        "dtype": "float32",
        "probes": probes,
        "corpus": {"corpus": "held-out", "documents": 40, "sha256": "ab" * 32},
        "model": {"n_params": size, "n_params_non_embedding": size * 9 // 10},
    }
    args = {"pretrained": model, "revision": revision}
    sha = {"model_sha": more["sha"]} if "sha" in more else {}
    content = new(results, args, 1.7e9, {"lmsat": notes, **sha})
    content["higher_is_better"] = {"piqa": {"acc": True}}
    folder = str(more.get("folder", f"{model.replace('/', '__')}/{revision.replace('/', '__')}"))
    return write(root / folder / "results_1.json", content)


def falling(share: float) -> float:
    """Return the loss after a share of the training."""
    return 2.5 + 1.5 * math.exp(-4 * share)


def write_olmo2(root: Path, model: str = "allenai/OLMo-2-1124-7B") -> dict[str, float]:
    """Write OLMo 2's stages: stage 1, three ingredients that begin again, and their average. Return each loss."""
    losses = {
        f"stage1-step{step}-tokens{4 * step // 1000}B": falling(step / 20000) for step in range(1000, 21000, 1000)
    }
    for ingredient in (1, 2, 3):
        for step in (1000, 2000, 3000):
            name = f"stage2-ingredient{ingredient}-step{step}-tokens{5 * step // 1000}B"
            losses[name] = 2.45 - step / 50000 + ingredient / 1000
    losses["main"] = 2.2
    return _written(root, model, losses)


def write_datadecide(root: Path, model: str = "allenai/DataDecide-c4-150M") -> dict[str, float]:
    """Write three seeds in one repository, of which two stop at a quarter. Return each loss."""
    losses = {}
    for number, (seed, last) in enumerate((("default", 40), ("small-aux-2", 10), ("large-aux-2", 10))):
        for index in range(1, last + 1):
            losses[f"step{1250 * index}-seed-{seed}"] = falling(index / 40) + number / 100
    return _written(root, model, losses)


def write_polypythias(root: Path, saturating: Mapping[int, bool], steps: int = 30) -> dict[tuple[int, int], float]:
    """Write runs of one model in repositories of their own, under one name. Return each loss by seed and step."""
    losses = {}
    for seed, rises in saturating.items():
        for index in range(1, steps + 1):
            step = 1000 * index
            jitter = 0.002 * math.sin(37 * index + seed)
            loss = falling(index / steps) + 0.01 * seed + jitter
            if rises and index > steps * 2 // 3:
                loss += 0.03 * (index - steps * 2 // 3)
            losses[seed, step] = loss
            revision = f"step{step}"
            repository = f"EleutherAI/pythia-410m-seed{seed}"
            path = write_checkpoint(root, repository, revision, loss, acc=0.5 + 0.2 * index / steps, n_params=4 * 10**8)
            _name(path, "pythia-410m", revision, run=f"seed{seed}", step=step)
    return losses


def _name(path: Path, model: str, revision: str, **more: str | int) -> None:
    """Note in a result file the name that a sweep's configuration gives its model."""
    content = json.loads(path.read_text("utf-8"))
    checkpoint = {"model": model, "revision": revision, "stage": None, "tokens": None, "words": None, **more}
    checkpoint |= {"total_step": more["step"], "commit": f"{more['run']}-{revision}".encode().hex()}
    content["config"]["lmsat"]["checkpoint"] = checkpoint
    path.write_text(json.dumps(content), "utf-8")


def write_babylm(root: Path, model: str = "lab/babylm-entry") -> dict[str, float]:
    """Write checkpoints that count words alone. Return each loss."""
    millions = [*range(1, 11), *range(20, 101, 10)]
    return _written(root, model, {f"chck_{count}M": falling(count / 100) for count in millions})


def write_baichuan(root: Path, model: str = "baichuan-inc/Baichuan2-7B") -> dict[str, float]:
    """Write checkpoints that state tokens alone. Return each loss."""
    return _written(root, model, {f"train_{220 * k:05}B": falling(k / 11) for k in range(1, 12)})


def write_amber(root: Path, model: str = "LLM360/Amber") -> dict[str, float]:
    """Write checkpoints with an index for a name. Return each loss."""
    return _written(root, model, {f"ckpt_{index:03}": falling(index / 300) for index in range(20, 320, 20)})


def law(n_params: float, tokens: float) -> float:
    """Return a loss by Chinchilla's law."""
    return 1.7 + 400 / n_params**0.34 + 410 / tokens**0.28


def write_scaling(root: Path, sizes: Mapping[str, int]) -> list[tuple[str, int, int, float]]:
    """Write models whose losses follow a law of all tokens seen, in stage 1 and in a stage that begins again.

    Return each checkpoint's series, size, tokens seen and loss.
    """
    points = []
    for model, size in sizes.items():
        stage_1 = size * 10 // B + 10
        for tokens in (stage_1 // 10, stage_1 // 4, stage_1 // 2, stage_1):
            points.append((model, size, tokens * B, law(size, tokens * B)))
            name = f"stage1-step{tokens * 10}-tokens{tokens}B"
            write_checkpoint(root, model, name, points[-1][-1], n_params=size)
        for tokens in (2, 5):
            seen = (stage_1 + tokens) * B
            points.append((f"{model} (stage2, ingredient1)", size, seen, law(size, seen)))
            name = f"stage2-ingredient1-step{tokens * 10}-tokens{tokens}B"
            write_checkpoint(root, model, name, points[-1][-1], n_params=size)
    return points


def _written(root: Path, model: str, losses: dict[str, float]) -> dict[str, float]:
    for name, loss in losses.items():
        write_checkpoint(root, model, name, loss)
    return losses
