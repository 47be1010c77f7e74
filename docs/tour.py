"""Write docs/tour.md: every command of lmsat with what it prints.

``python docs/tour.py FOLDER`` after a change of what a command prints. It runs them all in a folder, both
demonstrations first, in about a quarter of an hour. Begun again there, it goes on where it was.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

PAGE = Path(__file__).with_name("tour.md")
_INTRODUCTION = """\
# Every command at work

<!-- Made by docs/tour.py. -->

What each command prints, from a real run: on the two series that `lmsat demo` and `lmsat demo --long` train, offline,
on two CPU cores. "[...]" stands for lines left out, and N for times in seconds, which differ from machine to machine.
All options are in [commands.md](commands.md).
"""
_SHAPES = """\
model,n_params,hidden_size,n_layers,loss
a,1.0e7,256,12,4.512
b,1.1e7,512,3,4.489
c,1.0e7,128,48,4.561
d,4.1e7,512,12,4.141
e,4.0e7,1024,3,4.155
f,4.2e7,256,52,4.180
g,1.6e8,1024,12,3.802
h,1.6e8,2048,3,3.839
i,1.7e8,512,50,3.811
"""
CONVERSION = "lmsat convert ckpt_512.pt converted --config demo/checkpoints/neox-w128/step512"


@dataclass(frozen=True)
class Stop:
    """A command, what is said before it, and how many lines of its output are shown."""

    words: str
    command: str
    first: int = 40
    last: int = 0

    @property
    def name(self) -> str:
        """Of the subcommand."""
        return shlex.split(self.command)[1]


STOPS = (
    Stop(
        "Trains two small models on CPython's documentation, measures their checkpoints, and writes a report.",
        "lmsat demo",
        8,
        24,
    ),
    Stop(
        "Trains five on a language whose entropy rate is known. One memorises its few tokens.",
        "lmsat demo --long",
        4,
        36,
    ),
    Stop(
        "What a folder or a repository of the Hub holds. Look at the column of steps: it is the order of training.",
        "lmsat checkpoints demo/checkpoints/neox-w128 --tokens-per-step 2048",
    ),
    Stop("A state dict that `torch.save` wrote of a compiled model, as a folder for transformers.", CONVERSION),
    Stop(
        "What a model's parts cost. Look at the shares: in a small model the head and the embedding are much of it.",
        "lmsat size demo/checkpoints/neox-w128/step512",
    ),
    Stop(
        "What a sweep would do; here all is done. Look at what is left, and at what would be downloaded.",
        "lmsat sweep configs/demo.yaml --dry-run",
        12,
        4,
    ),
    Stop(
        "lm-eval's own command on one checkpoint, with lmsat's model and tasks.",
        "lmsat eval --model lmsat --model_args pretrained=demo/checkpoints/neox-w128/step512 "
        "--tasks lmsat_loss,lmsat_head --metadata corpus=demo/held_out.jsonl",
    ),
    Stop("The probes, corpora and plugins that are installed.", "lmsat probes", 40),
    Stop(
        "The values of any tree of results, one a row. "
        "Look at `±`, one standard error; `--wide` has a row a checkpoint.",
        "lmsat results demo/results",
        16,
    ),
    Stop(
        "Whether every file of it is still as it was written. Look for names of files: there are none if all is well.",
        "lmsat verify demo/results",
    ),
    Stop("What a word of verdicts, tables and charts means.", "lmsat explain effective rank"),
    Stop(
        "Whether models saturate, and since when. "
        "Look at the verdict, then at the sentence with its reason ([more](saturation.md)), and at what lies before "
        "the onset ([more](saturation.md#what-happens-when)).",
        "lmsat saturation demo-long/results",
        first=36,
        last=17,
    ),
    Stop(
        "Whether one model is better than another. "
        "Look at the first sentence; without a difference, at `detectable` ([more](comparing.md)).",
        "lmsat compare neox-w32 neox-w128 --results demo/results",
    ),
    Stop(
        "A scaling law. The widths differ and the language's entropy rate is 3.677: so much is E. "
        "Look at the warnings first ([more](scaling.md#a-law-of-size-and-data)).",
        "lmsat fit chinchilla demo-long/results --given E=3.677",
    ),
    Stop(
        "At which loss a task's scores leave chance. Look at `emergent`, then at the reason ([more](emergence.md)).",
        "lmsat emergence demo-long/results",
    ),
    Stop(
        "Which measurement tells models apart. The series is short, so that three checkpoints are its end. "
        "Look at `worth running` ([more](comparing.md#which-benchmark-can-tell-them-apart)).",
        "lmsat noise demo/results --task lmsat_loss --last 3",
    ),
    Stop(
        "How much of the loss's change cancels between tokens. Without the loss of every token, D has a bound. "
        "Look at `D`, and at the step of the deceleration ([more](learning.md)).",
        "lmsat learning demo-long/results --model repeated-w64",
    ),
    Stop(
        "What each size needs to come to a loss. Look at the last line ([more](scaling.md#tokens-to-reach-a-loss)).",
        "lmsat efficiency demo-long/results --loss 4.8",
    ),
    Stop(
        "Where in the context a model stops improving. "
        "Look at `stops at`, and whether it grows over training ([more](scaling.md#does-more-context-help)).",
        "lmsat context demo-long/results/fresh-w64",
        24,
    ),
    Stop(
        f"How much of the loss is the shape's. The table is made up, to show its form:\n\n```\n{_SHAPES}```",
        "lmsat shape shapes.csv",
    ),
    Stop(
        "What a compute buys, by published laws. "
        "Look at parameters and tokens ([more](scaling.md#what-published-laws-advise)).",
        "lmsat allocate --flops 1e21",
    ),
    Stop(
        "The rank that the LM head needs. Look at `rank` beside `width` in the second table ([more](rank.md)).",
        "lmsat bottleneck demo-long/results/fresh-w64/step2400",
    ),
    Stop(
        "How many dimensions a corpus takes up. Look at the last table ([more](rank.md#the-dimensions-of-a-corpus)).",
        "lmsat ngram demo-long/held_out.jsonl --tokenizer demo-long/checkpoints/fresh-w64/step2400",
    ),
    Stop(
        "A page with all of it. Open the path that is printed ([more](report.md#reading-the-report)).",
        "lmsat report demo-long/results",
    ),
    Stop(
        "The models in order. "
        "Look at the rank: models that share one cannot be told apart ([more](report.md#the-leaderboard)).",
        "lmsat leaderboard demo-long/results",
    ),
    Stop("Records of Every Eval Ever.", "lmsat export demo/results --output records"),
    Stop("Whether the installation works. Look for what is missing.", "lmsat doctor"),
)


def page(outputs: dict[str, str]) -> str:
    """Return the page, given what the commands print."""
    parts = [_INTRODUCTION]
    seen: set[str] = set()
    for stop in STOPS:
        if stop.name not in seen:
            parts.append(f"## lmsat {stop.name}\n")
            seen.add(stop.name)
        shown = "\n".join(shorten(outputs[stop.command].rstrip().splitlines(), stop.first, stop.last))
        parts.append(f"{stop.words}\n\n```\n$ {stop.command}\n{shown}\n```\n")
    return "\n".join(parts)


def shorten(lines: list[str], first: int, last: int) -> list[str]:
    """Return the first and the last lines, and a mark between them for those left out."""
    if len(lines) <= first + last:
        return lines
    return [*lines[:first], "[...]", *lines[len(lines) - last :]]


def run(command: str, folder: Path) -> str:
    """Return what a command prints in a folder, without the folder's own path; run it if it was not run before."""
    printed = folder / "printed" / f"{re.sub(r'[^a-z0-9]+', '-', command)}.txt"
    if printed.exists():
        return printed.read_text("utf-8")
    environment = {**os.environ, "COLUMNS": "120", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    print(command, flush=True)
    if command == CONVERSION:
        tensors = load_file(folder / "demo/checkpoints/neox-w128/step512/model.safetensors")
        torch.save({"model": {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}}, folder / "ckpt_512.pt")
    done = subprocess.run(
        shlex.split(command), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command} ends with exit code {done.returncode}:\n{done.stderr}")
    text = "\n".join(line.rstrip() for line in done.stdout.replace(f"{folder}/", "").splitlines())
    text = re.sub(r"\b(in|about) \d+ s\b", r"\1 N s", text)
    printed.write_text(text, "utf-8")
    return text


def main() -> None:
    """Run all commands, and write the page."""
    folder = Path(sys.argv[1]).resolve()
    (folder / "printed").mkdir(parents=True, exist_ok=True)
    (folder / "shapes.csv").write_text(_SHAPES, "utf-8")
    PAGE.write_text(page({stop.command: run(stop.command, folder) for stop in STOPS}), "utf-8")


if __name__ == "__main__":
    main()
