"""Series under the names of published ones, swept from folders without an option, and analysed without one."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import lmsat_plugin
from lmsat_plugin.cli.main import main
from lmsat_plugin.page import figure_files
from lmsat_plugin.page.sections import cards
from lmsat_plugin.results.variants import label

# From each series to its names in the order of training, and what else lies in the folder. A name in brackets is of a
# stage that begins again, or of a run.
SERIES = {
    "pythia": {"": ["step0", "step512", "step1000", "step143000"]},
    "olmo2": {
        "": ["step150-tokens1B", "stage1-step1000-tokens3B", "stage1-step20000-tokens42B"],
        "stage2, ingredient1": ["stage2-ingredient1-step1000-tokens5B", "stage2-ingredient1-step9000-tokens50B"],
        "stage2, ingredient2": ["stage2-ingredient2-step1000-tokens5B", "stage2-ingredient2-step9000-tokens50B"],
    },
    "smollm3": {
        "": ["stage1-step-40000", "stage2-step-3480000", "stage3-step-4720000"],
        "lc-4k-to-32k": ["lc-4k-to-32k-step-4000", "lc-4k-to-32k-step-20000"],
    },
    "datadecide": {
        "default": ["step1250-seed-default", "step10000-seed-default"],
        "small-aux-2": ["step1250-seed-small-aux-2", "step10000-seed-small-aux-2"],
    },
    "lucie": {"": ["step0005000", "step0753851"], "extension": ["extension_step0000250", "extension_step0001220"]},
    "apertus": {
        "": ["step50000-tokens210B", "step2627139-tokens15T"],
        "longctx": ["longctx-step50", "longctx-step400"],
    },
    "amber": {"": ["ckpt_000", "ckpt_009", "ckpt_010", "ckpt_100"]},
    "crystal": {"": ["CrystalCoder_phase1_checkpoint_055500", "CrystalCoder_phase2_checkpoint_214387"]},
    "baichuan": {"": ["train_00220B", "train_00440B", "train_02400B"]},
    "redpajama": {"": ["240b_tokens", "280b_tokens", "1000b_tokens"]},
    "fineweb": {"": ["step-001000-2BT", "step-010000-21BT"]},
    "babylm": {"": ["chck_1M", "chck_9M", "chck_10M", "chck_100M"]},
    "trainer": {"": ["checkpoint-500", "checkpoint-1000", "checkpoint-1500"]},
    "lightning": {"": ["epoch=0-step=1000", "epoch=1-step=2000", "epoch=2-step=3000"]},
    "nanotron": {"": ["1000", "2000", "10000"]},
    "megatron": {"": ["iter_0001000", "iter_0002384"]},
    "shares": {"": ["checkpoint_pct005", "checkpoint_pct010", "checkpoint_pct100"]},
}


@pytest.fixture(scope="module")
def swept(random_checkpoint, tmp_path_factory):
    """Return the folder of one sweep over all the series, each by its name alone."""
    root = tmp_path_factory.mktemp("published")
    for model, parts in SERIES.items():
        names = [name for part in parts.values() for name in part]
        for seed, name in enumerate([*names, "main"]):
            shutil.copytree(random_checkpoint(seed % 4, "gpt_neox"), root / model / name)
    (root / "text.txt").write_text("The cat sat on the mat. " * 20)
    models = [str(root / model) for model in SERIES]
    options = ["--tasks", "lmsat_loss", "--revisions", "all", "--corpus", str(root / "text.txt")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["sweep", *models, *options, "--output", str(root / "out"), "max_tokens=200", "device=cpu"]) == 0
    return root / "out"


@pytest.fixture(scope="module")
def losses(swept):
    """Return the loss of each checkpoint, by model and revision."""
    table = lmsat_plugin.load_results(swept)
    rows = table[(table.task == "lmsat_loss") & (table.metric == "loss")]
    return {(row.model, row.revision): row.value for row in rows.itertuples()}


def test_what_is_no_checkpoint_is_left_out(losses):
    assert {(model, name) for model, parts in SERIES.items() for part in parts.values() for name in part} == set(losses)


def test_saturation_takes_each_series_in_its_order(swept, losses, capsys):
    assert main(["saturation", str(swept), "--json"]) == 0
    found = {row["label"]: row for row in json.loads(capsys.readouterr().out)}
    expected = {label(model, part): (model, names) for model, parts in SERIES.items() for part, names in parts.items()}
    assert set(found) == set(expected)
    for series, (model, names) in expected.items():
        row = found[series]
        assert (row["final_revision"], row["final"]) == (names[-1], pytest.approx(losses[model, names[-1]]))
        assert row["best"] == pytest.approx(min(losses[model, name] for name in names[-row["n_checkpoints"] :]))


def test_the_leaderboard_takes_the_last_of_each(swept, losses, capsys):
    assert main(["leaderboard", str(swept), "--format", "json"]) == 0
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    for model, parts in SERIES.items():
        pooled: dict[str, list[str]] = {}
        for part, names in parts.items():
            stage = part.partition(",")[0] if model != "datadecide" else ""
            pooled.setdefault(label(model, stage), []).append(names[-1])
        for series, last in pooled.items():
            assert rows[series]["loss"] == pytest.approx(np.mean([losses[model, name] for name in last])), series
            assert rows[series].get("runs") == (len(last) if len(last) > 1 else None)


def test_the_report_shows_each(swept, tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "_MOST", 2)
    monkeypatch.setattr(figure_files, "_FORMATS", ("svg", "png"))
    assert main(["report", str(swept), "--output", str(tmp_path)]) == 0
    page = (tmp_path / "index.html").read_text("utf-8")
    for model, parts in SERIES.items():
        for part in parts:
            assert label(model, part) in page
