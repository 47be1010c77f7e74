"""``lmsat bottleneck``: its JSON, its tables, its figure and its refusals."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys

import numpy as np
import pytest
from quiz import write_quiz
from rank_results import arrays_of, scores_of, write_rank_result, write_scores
from safetensors.numpy import save_file

from lmsat_plugin.analysis.rank_needed import RankCurve, by_rank, rank_needed
from lmsat_plugin.cli.main import main
from lmsat_plugin.sweeps.config import load_config
from lmsat_plugin.sweeps.jobs import find_jobs
from lmsat_plugin.yaml_files import SHIPPED


def run_json(capsys, *arguments) -> list[dict]:
    assert main(["bottleneck", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def error_of(capsys, *arguments) -> str:
    assert main(["bottleneck", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lmsat: error: ")
    assert error.count("\n") == 1
    return error


def test_json_of_a_tree(tmp_path, capsys):
    share = {"lmsat_gradient_bottleneck": {"suppressed_norm_share,none": 0.75}}
    errors = np.sqrt(1 - np.arange(1, 33) / 32)
    write_rank_result(tmp_path / "neox-w24/step10", 10, arrays_of(1, trained=False))
    write_rank_result(tmp_path / "neox-w24/step20", 20, {**arrays_of(2), "ngram/w_error": errors}, more=share)
    before, after = run_json(capsys, tmp_path, "--within", 5)
    assert list(after) == [
        *("model", "variant", "revision", "step", "corpus", "curve", "full_loss", "within"),
        *("rank_needed", "rank_low", "rank_high", "hidden_size", "ranks", "corpus_dimension"),
        *("corpus_w_error_at_hidden_size", "suppressed_norm_share", "downstream"),
    ]
    assert [before[key] for key in ("model", "revision", "step", "corpus")] == ["neox-w24", "step10", 10, "sample"]
    assert (before["curve"], after["curve"]) == ("weighted", "trained")
    for one, arrays in ((before, arrays_of(1, trained=False)), (after, arrays_of(2))):
        curve = RankCurve.from_arrays(arrays)
        needed = rank_needed(curve, 0.05)
        assert one["full_loss"] == pytest.approx(curve.full_loss)
        assert one["within"] == 0.05
        assert [one["rank_needed"], one["rank_low"], one["rank_high"]] == [needed.rank, needed.low, needed.high]
        expected = by_rank(curve, arrays["rank_head/singular_values"])
        assert one["ranks"] == expected.assign(w_error=expected.w_error).to_dict("records")
        assert one["hidden_size"] == 24
    assert after["ranks"][3]["w_error"] == 0
    assert (before["corpus_dimension"], before["corpus_w_error_at_hidden_size"]) == (None, None)
    assert (after["corpus_dimension"], after["corpus_w_error_at_hidden_size"]) == (32, 0.5)
    assert (before["suppressed_norm_share"], after["suppressed_norm_share"]) == (None, 0.75)


def test_json_has_null_for_what_is_not_known(tmp_path, capsys):
    share = {"lmsat_gradient_bottleneck": {"suppressed_norm_share,none": math.nan}}
    arrays = {**arrays_of(documents=1), "rank_head/weighted_truncated_bound": np.full(4, np.inf)}
    write_rank_result(tmp_path, 1, arrays, note={"model": {}}, more=share)
    [one] = run_json(capsys, tmp_path, "--curve", "weighted")
    assert one["suppressed_norm_share"] is None
    assert [rank["bound"] for rank in one["ranks"]] == [None] * 4
    [one] = run_json(capsys, tmp_path / "results_1.json", "--curve", "truncated", "--within", 0.1)
    assert [one[key] for key in ("rank_needed", "rank_low", "rank_high", "hidden_size")] == [None] * 4
    assert [rank["gap_stderr"] for rank in one["ranks"]] == [None] * 4
    assert [rank["bound"] for rank in one["ranks"]] == [12.5, 6.25, 3.125, 1.5625]
    assert [type(rank["rank"]) for rank in one["ranks"]] == [int] * 4


def test_ngram_file(tmp_path, capsys):
    write_rank_result(tmp_path / "tree", 1, {**arrays_of(), "ngram/w_error": np.zeros(3)})
    ngram = tmp_path / "ngram.json"
    ngram.write_text(json.dumps({"corpus": "pile", "order": 5, "vocab_size": 512, "w_error": [0.5] * 30}))
    [one] = run_json(capsys, tmp_path / "tree", "--ngram", ngram)
    assert (one["corpus_dimension"], one["corpus_w_error_at_hidden_size"]) == (None, 0.5)
    for content in ("{", "[]", '{"w_error": "x"}', '{"w_error": [[1]]}', '{"w_error": [NaN]}'):
        ngram.write_text(content)
        assert "lmsat ngram --json" in error_of(capsys, tmp_path / "tree", "--ngram", ngram)
    assert "nowhere.json" in error_of(capsys, tmp_path / "tree", "--ngram", tmp_path / "nowhere.json")


def test_tables(tmp_path, capsys):
    write_rank_result(tmp_path / "a", 1000, {**arrays_of(), "ngram/w_error": np.sqrt(1 - np.arange(1, 33) / 32)})
    write_rank_result(tmp_path / "b", 2000, arrays_of(ranks=np.array([400, 800])), corpus="[bold]pile")
    assert main(["bottleneck", str(tmp_path), "--within", "5"]) == 0
    shown = capsys.readouterr().out
    assert "neox-w24, step1000, on sample: trained heads" in shown
    assert "neox-w24, step2000, on [bold]pile" in shown
    assert "within 5 % of the full one" in shown
    needed = rank_needed(RankCurve.from_arrays(arrays_of()), 0.05)
    assert f"{needed.rank:.1f}" in shown
    assert f"{needed.low:.1f} to {needed.high:.1f}" in shown
    assert "≤ 400 to ≤ 400" in shown
    assert "suppressed" not in shown
    assert main(["bottleneck", str(tmp_path), "--within", "0.1", "--curve", "truncated"]) == 0
    assert "> 32" in capsys.readouterr().out


def test_missing_and_broken_arrays(tmp_path, capsys, caplog):
    write_rank_result(tmp_path, 1, {})
    assert "arrays_1.safetensors cannot be read" in (error := error_of(capsys, tmp_path))
    assert "run lmsat_rank_head again" in error
    (tmp_path / "arrays_1.safetensors").write_bytes(b"nothing of the kind")
    assert "cannot be read" in error_of(capsys, tmp_path)
    write_rank_result(tmp_path, 1, arrays_of(), note={"arrays": None})
    assert "arrays=FOLDER in --model_args" in error_of(capsys, tmp_path)
    save_file({"loss/by_document": np.zeros(2)}, tmp_path / "arrays_1.safetensors")
    write_rank_result(tmp_path, 1, {})
    assert "lack rank_head/ranks" in error_of(capsys, tmp_path)
    arrays = arrays_of()
    del arrays["rank_head/singular_values"]
    write_rank_result(tmp_path, 1, arrays)
    assert "lack rank_head/singular_values" in error_of(capsys, tmp_path)
    # One that can be read is shown, and the other named.
    write_rank_result(tmp_path, 2, arrays_of())
    with caplog.at_level(logging.WARNING):
        assert [one["step"] for one in run_json(capsys, tmp_path)] == [2]
    assert "results_1.json" in caplog.text


def test_figure_file(tmp_path, capsys):
    write_scores(tmp_path / "tree/results_1.json", "pretrained=a/b,head_rank=8", {"piqa": {"acc,none": 0.6}})
    assert main(["bottleneck", str(tmp_path / "tree"), "--figure", str(tmp_path / "new" / "rank.svg")]) == 0
    shown = capsys.readouterr().out
    assert "a/b, main: accuracy by rank" in shown
    assert "Rank needed" not in shown
    svg = (tmp_path / "new" / "rank.svg").read_text()
    assert "Accuracy" in svg
    assert "Loss" not in svg
    write_rank_result(tmp_path / "tree", 2, arrays_of())
    assert main(["bottleneck", str(tmp_path / "tree"), "--figure", str(tmp_path / "rank.png")]) == 0
    assert "accuracy by rank" in (shown := capsys.readouterr().out)
    assert "Rank needed" in shown
    assert (tmp_path / "rank.png").read_bytes().startswith(b"\x89PNG")
    assert "rank.jpeg is not a figure's file name" in error_of(
        capsys, tmp_path / "tree", "--figure", tmp_path / "rank.jpeg"
    )
    (tmp_path / "file").write_text("")
    assert "cannot write" in error_of(capsys, tmp_path / "tree", "--figure", tmp_path / "file" / "rank.png")


def test_bad_input(tmp_path, capsys):
    write_rank_result(tmp_path / "tree", 1, arrays_of(trained=False))
    assert "train_tokens=N" in error_of(capsys, tmp_path / "tree", "--curve", "trained")
    assert "within=-0.01" in error_of(capsys, tmp_path / "tree", "--within", "-1")
    assert "neither a folder nor a file" in error_of(capsys, tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    content = {"results": {"piqa": {"acc,none": 0.5}}, "config": {"model_args": "pretrained=x"}}
    (tmp_path / "other" / "results_1.json").write_text(json.dumps(content))
    assert "--tasks lmsat_rank_head" in error_of(capsys, tmp_path / "other")
    with pytest.raises(SystemExit):
        main(["bottleneck", str(tmp_path), "--curve", "best"])


def test_analysis_and_command_import_neither_torch_nor_lm_eval_nor_matplotlib(tmp_path):
    write_rank_result(tmp_path, 1, arrays_of())
    code = (
        "import sys; from lmsat_plugin.cli.main import main; main(['bottleneck', sys.argv[1], '--json']); "
        "sys.exit(bool({'torch', 'lm_eval', 'transformers', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_sweep_with_heads_of_several_ranks(tmp_path, capsys, checkpoint):
    """What a sweep itself writes, with the model's arguments that it was given."""
    folder = str(checkpoint("gpt_neox"))
    heads = [{"pretrained": folder, "name": f"tiny rank {rank}", "model_args": {"head_rank": rank}} for rank in (2, 8)]
    config = {
        "models": [*heads, folder],
        "tasks": ["quiz", "lmsat_head"],
        "include_path": str(write_quiz(tmp_path / "quiz")),
        "output": str(tmp_path / "out"),
        "device": "cpu",
    }
    (tmp_path / "sweep.yaml").write_text(json.dumps(config))
    assert main(["sweep", str(tmp_path / "sweep.yaml")]) == 0
    capsys.readouterr()
    [one] = run_json(capsys, tmp_path / "out")
    values = {
        json.loads(path.read_text())["config"]["model_args"].get("head_rank", 48): json.loads(path.read_text())
        for path in (tmp_path / "out").rglob("results_*.json")
    }
    assert {rank: value for (*_, rank), value in scores_of(one).items()} == {
        rank: document["results"]["quiz"]["acc,none"] for rank, document in values.items()
    }
    assert [(s["rank"], s["curve"]) for s in one["downstream"]] == [(2, "truncated"), (8, "truncated"), (48, None)]
    assert one["model"] == "gpt_neox"


def test_the_sweep_over_ranks_that_is_shipped(monkeypatch):
    config = load_config(SHIPPED / "rank-downstream.yaml")
    refs = {"main": "a" * 40, "step0": "b" * 40, "step143000": "a" * 40}
    monkeypatch.setattr("lmsat_plugin.series.on_hub.list_refs", lambda repository: refs)
    jobs = find_jobs(config)
    assert {(job.checkpoint.pretrained, job.checkpoint.revision) for job in jobs} == {
        ("EleutherAI/pythia-410m", "step143000")
    }
    assert [job.model_args for job in jobs] == [{"head_rank": r} for r in (32, 64, 128, 256, 512, 768)] + [{}]
    assert {entry.task for entry in config.tasks} == {"lambada_openai", "arc_easy", "piqa", "sciq", "lmsat_loss"}


def test_one_corpus_of_several(tmp_path, capsys):
    for step, corpus in ((10, "sample"), (20, "pile")):
        write_rank_result(tmp_path / corpus, step, arrays_of(), corpus=corpus)
    assert main(["bottleneck", str(tmp_path), "--corpus", "pile", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["corpus"], row["step"]) == ("pile", 20)
    assert main(["bottleneck", str(tmp_path), "--corpus", "c4"]) == 2
    assert "--corpus c4: give some of pile, sample" in capsys.readouterr().err
    assert main(["bottleneck", str(tmp_path / "losses.csv")]) == 2
    assert "losses.csv is a table: give the folder of results" in capsys.readouterr().err
