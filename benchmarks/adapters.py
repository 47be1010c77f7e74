"""A sweep over ten LoRA adapters on one base: exchanged in place, and each loaded anew with its base.

The base has the shape of SmolLM2-135M and random weights. What a checkpoint costs beyond the forward passes: loading,
checking and hashing it, and writing its results.
"""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import common
import yaml
from sweep_loop import at_each_checkpoint, values

_SMALL = {
    **{"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4},
    **{"num_attention_heads": 4, "num_key_value_heads": 4},
}


def make_run(folder: Path, count: int, quick: bool) -> None:
    """Save a base with the demonstration's tokenizer, and LoRA adapters of rank 16 on all its blocks' matrices."""
    import peft
    import torch
    import transformers

    from lmsat_plugin import demo

    demonstration = demo.natural_language()
    demo.write_corpus(demonstration.held_out, folder / "held_out.jsonl")
    config = transformers.LlamaConfig(**common.SMOLLM2_135M | (_SMALL if quick else {}))
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder / "base")
    demonstration.tokenizer.save_pretrained(folder / "base")
    model.name_or_path = str(folder / "base")
    lora = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: Any = peft.get_peft_model(model, lora)
    for index in range(count):
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn_like(parameter) / 50
        adapted.save_pretrained(folder / "run" / f"step{100 * (index + 1)}")
    settings = {
        "models": [str(folder / "run")],
        "tasks": ["lmsat_loss", "lmsat_anisotropy"],
        "corpus": str(folder / "held_out.jsonl"),
        "max_tokens": 1000,
        "device": "cpu",
        "output": str(folder / "exchanged"),
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(settings))


def sweep(folder: Path, exchanged: bool) -> list[tuple[float, float]]:
    """Sweep; return of each checkpoint but the first its seconds beyond forward passes, and those of loading."""
    from lmsat_plugin.harness.checkpoint_evaluator import CheckpointEvaluator
    from lmsat_plugin.measurement import engine, forward
    from lmsat_plugin.model import peft_models
    from lmsat_plugin.sweeps.config import load_config
    from lmsat_plugin.sweeps.local import run_sweep

    common.silence()
    spent = {"forward": 0.0, "load": 0.0}

    def timed(owner: Any, name: str, what: str) -> None:
        plain = getattr(owner, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            begun = common.clock()
            try:
                return plain(*args, **kwargs)
            finally:
                spent[what] += common.clock() - begun

        setattr(owner, name, wrapper)

    timed(forward.ForwardPass, "_run_batch", "forward")
    # It runs the model on a few tokens, to check its parts.
    timed(engine, "dissect", "forward")
    timed(CheckpointEvaluator, "load", "load")
    if not exchanged:
        peft_models.AdaptedModel.exchange = lambda self, other: None  # type: ignore[method-assign]
    marks = at_each_checkpoint(lambda: (common.clock(), spent["forward"], spent["load"]))
    output = folder / ("exchanged" if exchanged else "loaded")
    summary = run_sweep(load_config(folder / "sweep.yaml", {"output": output}))
    assert not summary.failed, summary
    return [(b[0] - a[0] - (b[1] - a[1]), b[2] - a[2]) for a, b in pairwise(marks)]


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    count = 4 if quick else 10
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        common.in_child(make_run, folder, count, quick)
        found = {what: common.in_child(sweep, folder, what == "exchanged") for what in ("exchanged", "loaded")}
        ours, theirs = values(folder / "exchanged"), values(folder / "loaded")
    differing = float(sum(ours[key] != theirs.get(key) for key in ours)) + float(ours.keys() != theirs.keys())
    beyond, loading = ({what: sorted(each[i] for each in marks) for what, marks in found.items()} for i in (0, 1))
    middle = (count - 1) // 2
    rows = [
        common.Row(
            f"{what}, median, times faster",
            f"{of['exchanged'][middle]:.2f} s",
            f"{of['loaded'][middle]:.2f} s",
            of["loaded"][middle] / of["exchanged"][middle],
            at_least=target,
        )
        for what, of, target in (
            ("loading an adapter", loading, 2.0),
            ("a checkpoint beyond forward passes", beyond, None),
        )
    ]
    rows.append(
        common.Row(
            "a checkpoint beyond forward passes, most",
            f"{beyond['exchanged'][-1]:.2f} s",
            "-",
            beyond["exchanged"][-1],
            at_most=0.5,
        )
    )
    rows.append(common.Row(f"{len(ours)} values, number of those that differ", "", "", differing, at_most=0))
    return common.report("Adapters exchanged, and loaded anew", rows)


if __name__ == "__main__":
    raise SystemExit(main())
