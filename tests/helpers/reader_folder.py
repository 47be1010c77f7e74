"""The folder in which a reader of the documentation types its commands: checkpoints, results, texts and tables, small.

Repositories of the Hub are folders of their name here, which lmsat takes first.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import yaml
from peft_adapters import save_adapter
from places import ROOT
from positions import TOKENS, positions
from probes_in_files import SURPRISE
from rank_results import FULL, arrays_of
from result_trees import TOKENS_PER_STEP, Made, save_arrays, write_tree
from safetensors.torch import load_file as load_tensors
from token_loss_trees import MadeText

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STEPS = (1000, 2000, 4000, 8000, 16000, 32000, 64000, 100000, 120000, 143000)
MODELS = {
    **{"run-a": 3 * 10**7, "run-b": 6 * 10**7, "pythia-70m": 7 * 10**7, "pythia-160m": 16 * 10**7},
    **{"base": 5 * 10**8, "wider": 10**9, "deeper": 2 * 10**9, "my-model": 4 * 10**8},
}
SERIES = {
    "runs/my-model": ("step1", "step500", "step1000", "step1500", "step2000"),
    "runs/named": ("kestrel", "phoenix"),
    "runs/small": ("step1",),
    "runs/large": ("step1",),
    "EleutherAI/pythia-160m": ("step1", "step143000"),
    "EleutherAI/pythia-410m": ("step1",),
    **dict.fromkeys(
        ("allenai/OLMo-2-0425-1B", "allenai/OLMo-2-1124-7B"),
        ("stage1-step1000-tokens1B", "stage2-ingredient1-step100-tokens1B"),
    ),
    "HuggingFaceTB/SmolLM3-3B-checkpoints": ("stage1-step-40000", "lc-4k-to-32k-step-4000"),
    "BabyLM-community/babylm-baseline-100m-gpt2": ("chck_1M", "chck_2M"),
    **{f"EleutherAI/pythia-410m-seed{seed}": ("step1",) for seed in range(1, 10)},
}
SINGLE = (
    *("DIR", "EleutherAI/pythia-14m", "EleutherAI/pythia-70m", "EleutherAI/pythia-160m", "runs/my-model-config"),
    *("meta-llama/Llama-3.2-1B", "HuggingFaceTB/SmolLM2-135M", "assets/hf/Llama-3.1-8B"),
)
LADDER = {"190M": 19e7, "370M": 37e7, "760M": 76e7, "1B": 1e9, "13B": 13e9}


def lay_out(place: Path, checkpoint: Path, documents: Sequence[str]) -> None:
    """Fill an empty folder.

    Args:
        checkpoint: A folder with a model and its tokenizer, which all checkpoints are copies of.
        documents: Of the texts.
    """
    for name in (*SINGLE, *(f"{series}/{step}" for series, steps in SERIES.items() for step in steps)):
        shutil.copytree(checkpoint, place / name, copy_function=os.link)
    _lay_out_training_formats(place, checkpoint)
    save_adapter(place / "runs/my-lora/checkpoint-500", checkpoint)
    for name in ("my_text.jsonl", "text.jsonl", "demo/held_out.jsonl", "demo-long/held_out.jsonl"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), "utf-8")
    (place / "mine.py").write_text(SURPRISE, "utf-8")
    (place / "my_probe.py").write_text(SURPRISE.replace("surprise", "my_probe"), "utf-8")
    (place / "demo-long" / "next-token.yaml").write_text("task: next-token\ndataset_path: json\n", "utf-8")
    shutil.copytree(ROOT / "configs", place / "configs")
    for name in _configured(place / "configs") - {path.relative_to(place).as_posix() for path in place.glob("*/*")}:
        for step in ("step1", "step1000"):
            shutil.copytree(checkpoint, place / name / step, copy_function=os.link)
    (place / "run.yaml").write_text(
        "models: [runs/my-model]\ntasks: [lmsat_head]\ncorpus: my_text.jsonl\noutput: run-results\ndevice: cpu\n"
    )
    _lay_out_results(place / "results")
    for folder in sorted((place / "results" / "run-a").glob("*/step?000")):
        shutil.copytree(folder, place / "demo" / "results" / folder.name, copy_function=os.link)
    _lay_out_tables(place)


def _configured(folder: Path) -> set[str]:
    """Return the series of checkpoints that configurations of sweeps name."""
    read = [yaml.safe_load(file.read_text("utf-8")) for file in folder.glob("*.yaml")]
    entries = [entry for config in read for entry in config.get("models", ())]
    return {entry["pretrained"] if isinstance(entry, dict) else entry for entry in entries}


def _lay_out_training_formats(place: Path, checkpoint: Path) -> None:
    """Write checkpoints of training code, whose configuration is that of the copies."""
    tensors = load_tensors(checkpoint / "model.safetensors")
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in tensors.items()}}, place / "model.ckpt")
    for name in ("checkpoint-1000", "runs/other/step-1000", "out/pretrain/step-00001000"):
        (place / name).mkdir(parents=True)
        torch.save({"model": tensors}, place / name / "state.pt")


def _lay_out_results(root: Path) -> None:
    """Write a tree with a folder a model, the arrays of a sweep with ``arrays=``, and one result file at its top."""
    for name, size in MODELS.items():
        rises_from = 64000 if name == "run-a" else None
        write_tree(root / name, [Made(name, size, rises_from)], STEPS, corpus="pile", seed=size % 97)
    for file in (root / "my-model").rglob("results_*.json"):
        content = json.loads(file.read_text("utf-8"))
        content["config"]["model_args"]["head_rank"] = 32
        file.with_stem(f"{file.stem}_32").write_text(json.dumps(content), "utf-8")
    text, rng = MadeText(np.full(6, 60)), np.random.default_rng(0)
    for file in root.rglob("results_*.json"):
        content = json.loads(file.read_text("utf-8"))
        if f"step{STEPS[-1]}" in file.parts:
            content["results"]["lmsat_rank_head"] = {"alias": "lmsat_rank_head", "full_loss,none": FULL}
            content["config"]["lmsat"]["probes"]["rank_head"] = {"version": 1, "settings": {}, "reads_corpus": True}
        content["config"]["lmsat"]["corpus"]["window"] = 7
        content["config"]["lmsat"]["model"]["hidden_size"] = 24
        noted = content["config"]["lmsat"]["checkpoint"]
        noted["tokens"] = noted["step"] * TOKENS_PER_STEP
        file.write_text(json.dumps(content), "utf-8")
        losses_N = 0.1 * rng.standard_normal(len(text.ids_N))
        losses_N += content["results"]["lmsat_loss"]["loss,none"] - losses_N.mean()
        (root / "results.json").write_text(json.dumps(content), "utf-8")
        save_arrays(file, {**text.arrays(losses_N), **positions(2.3, 5.4, 0.62, TOKENS), **arrays_of()})


def _lay_out_tables(place: Path) -> None:
    """Write the tables in CSV that commands read."""
    runs = pd.concat([_run(f"m{size:.0e}", size, 2e6 * np.array(STEPS)) for size in np.geomspace(1e7, 1e9, 8)])
    runs.assign(step=(runs.tokens // 2e6).astype(int)).to_csv(place / "losses.csv", index=False)
    runs.to_csv(place / "small.csv", index=False)
    _run("m13B", 13e9, np.array([1e11, 3e11])).to_csv(place / "large.csv", index=False)
    equal = [
        _run(f"{flops:.0e}-{size:.0e}", size, np.array([flops / 6 / size]))
        for flops in (1e18, 1e19, 1e20)
        for size in (flops / 120) ** 0.5 * np.exp(np.linspace(-1, 1, 7))
    ]
    pd.concat(equal).to_csv(place / "runs.csv", index=False)
    _scores().to_csv(place / "scores.csv", index=False)
    sizes, widths = (each.ravel() for each in np.meshgrid([1e7, 4e7, 2e8], [128, 256, 512, 1024]))
    layers = np.maximum(2, sizes / 12 / widths**2).round().astype(int)
    shapes = {"n_params": sizes, "hidden_size": widths, "n_layers": layers, "loss": _loss(sizes, sizes * 20)}
    pd.DataFrame(shapes).assign(model=[f"s{index}" for index in range(12)]).to_csv(place / "models.csv", index=False)


def _loss(n_params: np.ndarray | float, tokens: np.ndarray | float) -> np.ndarray:
    """Return Chinchilla's losses with noise of 0.3 %."""
    loss = np.asarray(1.69 + 406.4 / n_params**0.34 + 410.7 / tokens**0.28)
    return loss * np.exp(0.003 * np.random.default_rng(0).standard_normal(loss.shape))


def _run(model: str, n_params: float, tokens: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"model": model, "n_params": n_params, "tokens": tokens, "loss": _loss(n_params, tokens)})


def _scores() -> pd.DataFrame:
    """Return scores of a ladder of sizes, each trained on 20 and on 100 tokens a parameter, on two tasks."""
    tables = []
    for size, n_params in LADDER.items():
        for ratio in (20, 100):
            run = _run(f"{size}-{ratio}", n_params, ratio * n_params * np.linspace(0.2, 1, 8))
            for task in ("arc_easy", "arc_challenge"):
                score = 0.25 + 0.75 / (1 + np.exp(6 * (run.loss - 2.6)))
                tables.append(run.assign(size=size, step=range(1, 9), task=task, score=score))
    return pd.concat(tables).assign(metric="acc", chance=0.25, n_samples=2000)
