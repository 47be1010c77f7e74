"""Results of other tools: each layout, against numbers that are in the file or follow from it by hand."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from other_tools_files import (
    contents_v1,
    contents_v2,
    datadecide,
    ladder_log,
    ladder_table,
    lighteval,
    olmes_short,
    olmes_task,
    record,
)
from result_files import new, ours, write
from result_trees import Made, write_result, write_tree

from lmsat_plugin import Results, load_results
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError

CALLED = "results_2024-04-02T10-38-22.166273.json"


def rows_of(path) -> list[tuple]:
    """Return task, shots, metric and value of each row of a tree."""
    table = load_results(path).astype({"num_fewshot": object})
    shots = table.num_fewshot.where(table.num_fewshot.notna(), None)
    return sorted(zip(table.task, shots, table.metric, table.value, strict=True), key=str)


def test_lighteval(tmp_path):
    write(tmp_path / "results/HuggingFaceTB/SmolLM2-135M" / CALLED, lighteval())
    assert rows_of(tmp_path) == [
        ("leaderboard|arc:challenge", 25, "acc", 0.25),
        ("leaderboard|arc:challenge", 25, "acc_norm", 0.375),
        ("leaderboard|hellaswag", 10, "acc", 0.5),
        ("leaderboard|hellaswag", 10, "acc_norm", 0.625),
    ]
    table = load_results(tmp_path)
    assert set(table.model) == {"HuggingFaceTB/SmolLM2-135M"}
    assert set(table.commit) == {"c" * 40}
    assert set(table.date.astype(str)) == {"2024-04-02 10:38:22+00:00"}
    assert table.higher_is_better.all()
    arc = table[(table.task == "leaderboard|arc:challenge") & (table.metric == "acc")].iloc[0]
    assert (arc.stderr, arc.n_samples) == (0.0125, 1172)


def test_lighteval_of_today_has_no_suites_and_averages_of_parts(tmp_path):
    scores = {
        "mmlu:anatomy|5": {"acc": 0.25, "acc_stderr": float("nan")},
        "mmlu:virology|5": {"acc": 0.5},
        "mmlu:_average|5": {"acc": 0.375},
        "gsm8k|0": {"em": 0.125},
        "gsm8k|5": {"em": 0.25},
        "all": {"acc": 0.375, "em": 0.1875},
    }
    config = {"model_name": "org/m", "revision": "step1000", "dtype": "bfloat16"}
    write(tmp_path / CALLED, lighteval(scores, "org/m", model_sha=None, model_dtype=None, model_config=config))
    assert rows_of(tmp_path) == [
        *[("gsm8k", 0, "em", 0.125), ("gsm8k", 5, "em", 0.25)],
        *[("mmlu:anatomy", 5, "acc", 0.25), ("mmlu:virology", 5, "acc", 0.5)],
    ]
    table = load_results(tmp_path)
    assert set(table.step) == {1000}
    assert table.stderr.isna().all()


def test_checkpoints_of_lighteval_in_folders(tmp_path):
    for step in (500, 1000):
        write(tmp_path / f"{step}" / CALLED, lighteval(model=f"/scratch/runs/my-run/checkpoint-{step}"))
    table = load_results(tmp_path)
    assert set(zip(table.model, table.step, strict=True)) == {("my-run", 500), ("my-run", 1000)}


def test_olmes(tmp_path):
    lines = [
        olmes_task("arc_challenge"),
        olmes_task("mmlu_anatomy:mc", {"acc_raw": 0.3125, "primary_score": 0.3125}, primary_metric="acc_raw"),
        # A mean over tasks, as OLMES puts in front of them.
        olmes_task("mmlu", {"primary_score": 0.3}, primary_metric="macro"),
    ]
    folder = tmp_path / "out"
    write(folder / "metrics-all.jsonl", "\n".join(map(json.dumps, lines)))
    wanted = [
        ("arc_challenge:rc::olmes", 5, "acc_per_char", 0.21875),
        ("arc_challenge:rc::olmes", 5, "acc_raw", 0.1875),
        ("arc_challenge:rc::olmes", 5, "acc_uncond", 0.25),
        ("mmlu_anatomy:mc:rc::olmes", 5, "acc_raw", 0.3125),
    ]
    assert rows_of(tmp_path) == wanted
    table = load_results(tmp_path)
    assert set(zip(table.model, table.step, table.n_samples, strict=True)) == {("allenai/OLMo-150M", 1250, 1172)}
    assert set(table.date.astype(str)) == {"2024-12-19 12:16:07+00:00"}
    # What OLMES writes beside says the same, and nothing of it is counted as measured again.
    write(folder / "metrics.json", olmes_short(*lines))
    for index, line in enumerate(lines):
        write(folder / f"task-00{index}-{line['task_name'].replace(':', '_')}-metrics.json", line)
    read = Results.read(tmp_path)
    assert (len(read.table), read.note, read.warnings) == (4, None, ())
    (folder / "metrics-all.jsonl").unlink()
    assert rows_of(tmp_path) == wanted
    for path in folder.glob("task-*"):
        path.unlink()
    assert rows_of(tmp_path) == wanted


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("{'acc_raw': 0.5, 'finance': 1, 'x nan y': -inf, 'acc_uncond': nan, 'a': None}", {0.5, 1, float("-inf")}),
        ('{"acc_raw": 0.5, "it\'s": 2}', {0.5, 2}),
        ("{'acc_raw': 0.5, 'of': \"it's\", 'b': True}", {0.5}),
    ],
)
def test_metrics_of_datadecide_as_text(tmp_path, text, values):
    pd.DataFrame([{**datadecide()[0], "metrics": text}]).to_parquet(tmp_path / "train.parquet")
    assert set(load_results(tmp_path).value) == values


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_datadecide(tmp_path, form):
    table = pd.DataFrame(datadecide())
    path = tmp_path / f"train-00000-of-00004.{form}"
    table.to_csv(path, index=False) if form == "csv" else table.to_parquet(path)
    assert (
        rows_of(tmp_path)
        == rows_of(path)
        == [
            ("arc_challenge", 5, "acc_per_char", 0.3125),
            ("arc_challenge", 5, "acc_raw", 0.25),
            ("arc_challenge", 5, "acc_raw", 0.375),
            ("boolq", 5, "acc_raw", 0.5),
            ("boolq", 5, "bits_per_byte_corr", 1.25),
        ]
    )
    found = load_results(tmp_path)
    assert set(zip(found.model, found.run, found.n_params, strict=True)) == {
        ("DataDecide Dolma1.7 (no code) 150M", "small-aux-2", 150 * 10**6)
    }
    assert set(zip(found.step, found.tokens, strict=True)) == {(1250, 614400000), (2500, 1228800000)}
    assert set(found[found.step == 2500].path) == {
        f"{path.name}#DataDecide Dolma1.7 (no code) 150M step2500-seed-small-aux-2"
    }


def test_logs_of_the_ladder(tmp_path):
    path = tmp_path / "190M-10xC.csv"
    pd.DataFrame(ladder_log()).to_csv(path, index=False)
    found = load_results(tmp_path)
    assert set(zip(found.model, found.step, found.tokens, strict=True)) == {
        ("190M-10xC", 1000, 524288000),
        ("190M-10xC", 2000, 1048576000),
    }
    late = found[found.step == 2000]
    assert sorted(zip(late.task, late.metric, late.value, late.higher_is_better, strict=True)) == [
        ("arc_easy_val_rc", "acc_norm", 0.375, True),
        ("arc_easy_val_rc", "bits_per_byte", 1.25, False),
        ("arc_easy_val_rc", "soft_log", -1.25, True),
        ("boolq_val_rc", "acc", 0.625, True),
        ("c4_en-validation", "loss", 3.5, False),
    ]
    assert set(late[late.task != "c4_en-validation"].num_fewshot) == {5}
    assert sorted(load_results(path).value) == sorted(found.value)


def test_rows_of_one_step_that_fill_other_columns_are_one_checkpoint(tmp_path):
    """So Weights & Biases exports what was logged at several times."""
    header = "_step,eval/downstream/a_5shot_acc,eval/downstream/b_5shot_acc\n"
    write(tmp_path / "190M.csv", f"{header}1,0.25,\n1,,0.5\n2,0.75,\n2,0.5,\n")
    read = Results.read(tmp_path)
    found = sorted(zip(read.table.step, read.table.task, read.table.value, strict=True))
    assert found == [(1, "a", 0.25), (1, "b", 0.5), (2, "a", 0.5)]
    assert read.note.startswith("1 of 4 values was measured again")


def test_an_analysis_takes_the_log_of_a_run_for_results(tmp_path, capsys):
    path = tmp_path / "190M-10xC.csv"
    pd.DataFrame(ladder_log()).to_csv(path, index=False)
    assert main(["saturation", str(path), "--task", "c4_en-validation", "--metric", "loss", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["verdict"] == "unclear"


def test_the_ladder_s_table(tmp_path):
    path = tmp_path / "olmo_ladder.csv"
    pd.DataFrame(ladder_table()).to_csv(path, index=False)
    assert rows_of(path) == [
        ("arc_easy_test", None, "acc", 0.375),
        ("arc_easy_test", None, "bits_per_byte", 1.25),
        ("arc_easy_test", None, "chance", 0.25),
        ("boolq_val", None, "acc", 0.625),
        ("boolq_val", None, "bits_per_byte", 0.5),
        ("boolq_val", None, "chance", 0.5),
        ("c4_en-validation", None, "loss", 3.625),
    ]


def test_contents_of_the_open_llm_leaderboard(tmp_path):
    """Of v2 the raw scores are taken, from 0 to 1; those of v1 are in percent."""
    pd.DataFrame(contents_v2()).to_parquet(tmp_path / "v2.parquet")
    pd.DataFrame(contents_v1()).to_csv(tmp_path / "v1.csv", index=False)
    found = load_results(tmp_path)
    new_rows, old_rows = (found[found.model == name] for name in ("EleutherAI/pythia-1b", "EleutherAI/pythia-1.3b"))
    assert dict(zip(new_rows.task, new_rows.value, strict=True)) == {
        "leaderboard_ifeval": 0.22,
        "leaderboard_bbh": 0.29699704912341607,
        "leaderboard_math_hard": 0.0030211480362537764,
        "leaderboard_gpqa": 0.25671140939597314,
        "leaderboard_musr": 0.3544973544973545,
        "leaderboard_mmlu_pro": 0.11361369680851063,
    }
    assert set(zip(new_rows.commit, new_rows.n_params, strict=True)) == {("f" * 40, 1010000000)}
    assert set(new_rows.date.astype(str)) == {"2025-01-27 00:00:00+00:00"}
    shown = sorted(zip(old_rows.task, old_rows.num_fewshot, old_rows.metric, old_rows.value, strict=True))
    assert shown[0] == ("harness|arc:challenge", 25, "acc_norm", 0.3125)
    assert shown[-1] == ("harness|winogrande", 5, "acc", 0.53125)
    assert len(shown) == 6


def test_records_of_others(tmp_path):
    write(tmp_path / "data/x/1.json", record())
    (row,) = load_results(tmp_path).to_dict("records")
    found = (row["model"], row["task"], row["metric"], row["value"], row["stderr"], row["higher_is_better"])
    assert found == ("TencentARC/LLaMA-Pro-8B-Instruct", "GPQA", "accuracy", 0.2743, 0.0129, True)
    assert str(row["date"]) == "2025-02-10 00:14:46+00:00"


def test_records_come_back_as_they_were_exported(tmp_path):
    tree = tmp_path / "tree"
    write_tree(tree, [Made("org/m", 10**6), Made("other", 2 * 10**6)], steps=(1, 100))
    write(tree / "corpora/results_1.json", ours(2.5, corpus={"corpus": "pile"}))
    write(tree / "shots/results_1.json", new(date=1.75e9))
    write_result(tree / "odd", "m", 1, {"crows_pairs": {"pct_stereotype": 0.6}})
    assert main(["export", str(tree), "--output", str(tmp_path / "records")]) == 0
    columns = ["model", "revision", "step", "tokens", "n_params", "corpus", "task", "num_fewshot", "metric", "filter"]
    columns += ["value", "stderr", "n_samples", "higher_is_better", "date"]
    back, before = (load_results(path)[columns] for path in (tmp_path / "records", tree))
    pd.testing.assert_frame_equal(back.drop(columns="date"), before.drop(columns="date"))
    # Records state whole seconds.
    assert (back.date == before.date.dt.floor("s")).all()
    # Beside what they were made of they say nothing new, except of texts, whose settings records do not state.
    both = load_results(tmp_path)
    assert len(both[both.corpus.isna()]) == before.corpus.isna().sum()


def test_records_name_the_program_that_evaluated(tmp_path):
    write(tmp_path / "1" / CALLED, lighteval())
    write(tmp_path / "2/metrics-all.jsonl", json.dumps(olmes_task()))
    write(tmp_path / "3/record.json", {**record(), "eval_library": {"name": "helm", "version": "1"}})
    write(tmp_path / "4/results_1.json", new())
    assert main(["export", str(tmp_path), "--output", str(tmp_path / "out")]) == 0
    exported = [json.loads(path.read_text("utf-8")) for path in (tmp_path / "out").rglob("*.json")]
    libraries = sorted(one["eval_library"]["name"] for one in exported)
    assert libraries == ["helm", "lighteval", "lm_eval", "olmes"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics-all.jsonl", '{"metrics": {}, "task_config": {}'),
        ("metrics-all.jsonl", "[1]\n"),
        ("metrics.json", '{"model_config": {}, "task_config": '),
        ("record.json", '{"evaluation_results": [, "model_info": {}}'),
        ("train.parquet", "PAR1 cut"),
        ("DataDecide.csv", "params,data,task,step,seed,metrics\n1B,C4,boolq,5,default,[[["),
        ("190M.csv", "_step,eval/downstream/a_5shot_acc\n1,2,3,4,5\n"),
        ("DataDecide.csv", "params,data,task,step,seed,metrics\n1B,C4,boolq,,default,{}\n"),
        ("190M.csv", "_step,eval/downstream/a_5shot_acc\n1.5,0.5\n"),
        ("190M.csv", "_step,eval/downstream/a_5shot_acc\n-1,0.5\n"),
        ("190M.csv", "_step,eval/downstream/a_5shot_acc\nx,0.5\n"),
    ],
)
def test_broken_files_are_left_out_with_a_sentence(tmp_path, name, content):
    write(tmp_path / "good/results_1.json", new())
    write(tmp_path / name, content)
    read = Results.read(tmp_path)
    assert len(read.table) == 1
    (warning,) = read.warnings
    assert warning.startswith(f"{tmp_path / name} is skipped (")
    with pytest.raises(LmsatError, match="holds no lm-eval results"):
        load_results(tmp_path / name)


def test_other_tables_and_json_are_passed_over(tmp_path):
    write(tmp_path / "results_1.json", new())
    write(tmp_path / "leaderboard.csv", "rank,model,loss\n1,a,2.5\n")
    write(tmp_path / "empty.csv", "")
    write(tmp_path / "metrics.json", {"accuracy": 0.5})
    write(tmp_path / "task.json", {"task_config": 1, "model_config": 2})
    pd.DataFrame({"text": ["a"]}).to_parquet(tmp_path / "corpus.parquet")
    read = Results.read(tmp_path)
    assert (len(read.table), read.warnings) == (1, ())


def test_many_broken_files_are_counted_in_a_line(tmp_path):
    write(tmp_path / "results_1.json", new())
    for index in range(5):
        write(tmp_path / f"{index}.json", {"results": [], "versions": {}})
    (warning,) = Results.read(tmp_path).warnings
    assert warning == (
        f"5 files are skipped (its 'results' are not lm-eval's), the first of them {tmp_path / '0.json'}: "
        "restore or remove them"
    )
