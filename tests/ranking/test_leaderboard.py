"""Places, the downstream average, and the leaderboard as people, spreadsheets and the Hub read it."""

from __future__ import annotations

import io
import itertools
import json
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import yaml
from places import PYTHIA_EVALS
from result_trees import Made, write_result, write_tree
from safetensors.numpy import save_file
from scipy.stats import norm, ttest_rel

from lmsat_plugin import load_results
from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.downstream_average import above_line, downstream_average
from lmsat_plugin.analysis.scaling_laws import fit
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures.style import write_figure
from lmsat_plugin.ranking.formats import FORMATS, as_csv, html, markdown
from lmsat_plugin.ranking.hub_folder import push, write_hub_folder
from lmsat_plugin.ranking.leaderboard import leaderboard, leaderboard_of
from lmsat_plugin.ranking.ranks import Scored, holm, places

EVALS = PYTHIA_EVALS
NAME = '<script>alert("x")</script>|y'


def table_of(rows: list[dict]) -> pd.DataFrame:
    """Return a tidy table as load_results makes it."""
    own = {"revision": "main", "num_fewshot": 0, "filter": "none", "stderr": np.nan, "corpus": None}
    table = pd.DataFrame([{**own, "path": row["model"], **row} for row in rows])
    for name in ("step", "tokens", "n_params", "hidden_size", "num_fewshot"):
        table[name] = pd.array(table[name].tolist() if name in table else [None] * len(table), dtype="Int64")
    return table


def test_holm_is_the_closure_of_bonferroni():
    rng = np.random.default_rng(0)
    for _ in range(50):
        p_values_Q = rng.choice([0.001, 0.009, 0.011, 0.013, 0.02, 0.03, 0.049, 0.2], 5)
        subsets = [s for n in range(1, 6) for s in itertools.combinations(range(5), n)]
        rejected = {s for s in subsets if p_values_Q[list(s)].min() <= 0.05 / len(s)}
        closed = [all(s in rejected for s in subsets if i in s) for i in range(5)]
        assert holm(p_values_Q).tolist() == closed


def test_models_that_cannot_be_told_apart_share_a_place():
    # 0.1 / (0.04 √2) = 1.8 is no difference, 0.2 is one: 3.5 with three pairs.
    three = [Scored(value, 0.04) for value in (1.2, 1.0, 1.1)]
    found = places(three, higher_is_better=False)
    assert found.places == [2, 1, 1]
    assert (found.tested, found.paired) == (3, 0)
    assert places(three, higher_is_better=True).places == [1, 2, 1]
    assert places([Scored(1.0)], higher_is_better=False).places == [1]
    assert places([Scored(1.0), Scored(9.0)], higher_is_better=False).places == [None, None]
    assert places([Scored(1.0), Scored(2.0, 0.1), Scored(9.0, 0.1)], True).places == [None, 2, 1]


def test_pairs_of_documents_are_tested_as_by_scipy():
    """With documents of one length the ratio's test is the paired t test; its 5 % decide the place of two models."""
    rng = np.random.default_rng(1)
    tokens_M = np.full(12, 100)
    decided = set()
    for _ in range(60):
        nats_M = rng.normal(300, 60, 12)
        others_M = nats_M + rng.normal(6, 10, 12)
        two = [Scored(float(sums_M.sum() / 1200), 0.17, (sums_M, tokens_M)) for sums_M in (nats_M, others_M)]
        found = places(two, higher_is_better=False)
        significant = ttest_rel(nats_M, others_M).pvalue <= 0.05
        better = int(nats_M.sum() > others_M.sum())
        assert found.places[1 - better] == 1 + significant
        assert (found.places[better], found.paired) == (1, 1)
        decided.add(bool(significant))
    assert decided == {True, False}
    # Other tokens are other documents: then only the standard errors count.
    other = Scored(two[1].value, 0.17, (others_M, tokens_M + 1))
    assert places([two[0], other], higher_is_better=False).paired == 0


def test_equal_models_share_the_first_place_in_95_of_100_cases():
    rng = np.random.default_rng(2)
    wrong = sum(
        set(places([Scored(value, 0.1) for value in rng.normal(3, 0.1, 5)], False).places) != {1}
        for _ in range(600)
    )
    assert wrong / 600 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)
    assert wrong > 0


def test_downstream_average():
    rows = []
    for model, piqa, anatomy in (("a", 0.75, 0.25), ("b", 0.5, 0.4)):
        rows += [
            {"model": model, "task": "piqa", "metric": "acc", "value": piqa, "stderr": 0.01},
            {"model": model, "task": "piqa", "metric": "acc", "value": 0.99, "num_fewshot": 5},
            {"model": model, "task": "piqa", "metric": "acc_norm", "value": 0.99},
            {
                "model": model,
                "task": "hendrycksTest-anatomy",
                "metric": "acc",
                "value": anatomy,
                "stderr": 0.03,
            },
            {"model": model, "task": "hendrycksTest-virology", "metric": "acc", "value": 0.25, "stderr": 0.0},
            {"model": model, "task": "nobody_knows", "metric": "acc", "value": 0.9},
        ]
    rows.append({"model": "a", "task": "winogrande", "metric": "acc", "value": 0.9})
    found = downstream_average(table_of(rows))
    assert found.tasks == ("hendrycksTest (2 subjects, acc, 0-shot)", "piqa (acc, 0-shot)")
    assert found.scores["a"][0] == pytest.approx((0.5 + 0) / 2)
    assert found.scores["b"][0] == pytest.approx((0 + (0.2 + 0) / 2) / 2)
    assert found.scores["a"][1] == pytest.approx(np.hypot(0.01 / 0.5 / 2, 0.03 / 0.75 / 4))
    assert downstream_average(table_of(rows[5:6])) is None
    measured = {"model": "a", "task": "nobody_knows", "metric": "chance", "value": 0.5}
    found = downstream_average(table_of([rows[5], measured]))
    assert found.scores["a"][0] == pytest.approx(0.8)


def test_above_the_line_of_the_others():
    """Each point against a line refitted without it, with the textbook's error of a prediction."""
    rng = np.random.default_rng(3)
    x_K = rng.uniform(2, 4, 7)
    y_K = 1 - 0.2 * x_K + rng.normal(0, 0.02, 7)
    above_K, stderr_K = above_line(x_K, y_K)
    for index in range(7):
        x, y = np.delete(x_K, index), np.delete(y_K, index)
        line = np.polyfit(x, y, 1)
        assert above_K[index] == pytest.approx(y_K[index] - np.polyval(line, x_K[index]))
        spread = ((y - np.polyval(line, x)) ** 2).sum() / (6 - 2)
        distance = (x_K[index] - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()
        assert stderr_K[index] == pytest.approx(np.sqrt(spread * (1 + 1 / 6 + distance)))
    assert above_line(x_K[:4], y_K[:4]) is None
    assert above_line(np.ones(6), y_K[:6]) is None
    assert above_line(np.array([1.0, 1, 1, 1, 2]), y_K[:5]) is None


def loss_rows(model: str, loss: float, tokens: int = 1000, **more) -> list[dict]:
    own = {"model": model, "task": "lmsat_loss", "hidden_size": 64, **more}
    values = {
        "loss": loss,
        "bits_per_byte": loss * tokens / 4000 / np.log(2),
        "tokens": tokens,
        "bytes": 4000,
    }
    return [
        {**own, "metric": name, "value": value, "stderr": 0.01 if name == "loss" else np.nan}
        for name, value in values.items()
    ]


def test_by_bits_per_byte_where_tokens_differ():
    rows = [*loss_rows("few long tokens", 3.5, 800), *loss_rows("many short tokens", 3.2, 1000)]
    found = leaderboard(table_of(rows))
    assert found.ranked_by.name == "bits_per_byte"
    assert [row["model"] for row in found.rows] == ["few long tokens", "many short tokens"]
    assert "do not compare" in " ".join(found.notes)
    best = found.rows[0]
    assert best["bits_per_byte_stderr"] == pytest.approx(0.01 * 800 / 4000 / np.log(2))
    same = leaderboard(table_of([*rows[:4], *loss_rows("many short tokens", 3.2, 800)]))
    assert (same.ranked_by.name, same.rows[0]["model"]) == ("loss", "many short tokens")


def test_what_is_known_of_the_last_checkpoint():
    steps = {100: 4.0, 200: 3.0, 400: 3.25}
    rows = [
        row
        for step, loss in steps.items()
        for row in loss_rows("m", loss, step=step, revision=f"step{step}", path=str(step))
    ]
    head = {"model": "m", "task": "lmsat_head", "hidden_size": 64}
    last = {**head, "step": 400, "revision": "step400"}
    rows += [
        {**last, "metric": "effective_rank", "value": 48.0},
        {**head, "step": 200, "revision": "step200", "metric": "singular_entropy", "value": 9.0},
        {**last, "metric": "singular_entropy", "value": 2.5},
    ]
    (row,) = leaderboard(table_of(rows)).rows
    assert (row["loss"], row["best_loss"], row["best_step"], row["checkpoint"]) == (3.25, 3.0, 200, "step400")
    assert (row["head_capacity"], row["singular_entropy"], row["place"]) == (0.75, 2.5, 1)
    assert "anisotropy_last" not in row
    assert "downstream" not in row


def test_gap_to_a_law():
    """Losses of a known law: the gap of a model 8 % above it is 8 %."""
    sizes = [(n, d) for n in (1e7, 4e7, 1.6e8, 6.4e8) for d in (1e9, 4e9, 1.6e10)]
    rows = [
        row
        for index, (n, d) in enumerate(sizes)
        for row in loss_rows(
            f"m{index}", 1.7 + 400 / n**0.34 + 410 / d**0.28, n_params=int(n), tokens_=int(d)
        )
    ]
    table = table_of(rows).assign(tokens=lambda t: t.tokens_.astype("Int64"))
    law = fit("chinchilla", table[table.metric == "loss"].rename(columns={"value": "loss"}))
    table.loc[(table.model == "m5") & (table.metric == "loss"), "value"] *= 1.08
    gaps = {row["model"]: row["law_gap"] for row in leaderboard(table, law=law).rows}
    assert gaps["m5"] == pytest.approx(8, abs=0.2)
    assert max(abs(gap) for model, gap in gaps.items() if model != "m5") < 0.2


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    models = [
        *(Made(f"org/m{size}", 10**6 * 4**size) for size in range(5)),
        Made("org/sick", 4 * 10**6, 4000),
    ]
    write_tree(root, [*models, Made(NAME, 2 * 10**6)])
    return root


@pytest.fixture(scope="module")
def board(tree):
    return leaderboard_of(Analyses.of(tree, tokens_per_step=2_000_000))


def test_leaderboard_of_a_tree(board):
    rows = {row["model"]: row for row in board.rows}
    assert [row["model"] for row in board.rows][:2] == ["org/m4", "org/m3"]
    assert rows["org/sick"]["verdict"] == "saturates"
    assert rows["org/m4"]["verdict"] != "saturates"
    for worse, better in itertools.permutations(board.rows, 2):
        z = (worse["loss"] - better["loss"]) / (0.006 * np.sqrt(2))
        # Holm's strictest level, of 21 pairs: whoever is better by that is placed before.
        if z > norm.isf(0.025 / 21):
            assert worse["place"] > better["place"]
    assert {"downstream", "above_loss", "anisotropy_last", "best_step"} <= {
        column.name for column in board.columns
    }
    assert "21 pairs (0 of them document by document" in board.notes[1]
    # All have seen as many tokens.
    assert board.notes[-1].endswith("at their last checkpoints, with E = 1.69, B = 410.7, beta = 0.28 given.")
    assert rows["org/sick"]["law_gap"] > rows["org/m4"]["law_gap"]
    assert "2 tasks that all of these models have: arc_easy (acc, 0-shot), piqa (acc, 0-shot)" in " ".join(
        board.notes
    )


def test_losses_by_document_tell_apart_what_standard_errors_cannot(tmp_path):
    rng = np.random.default_rng(4)
    tokens_M = rng.integers(50, 200, 30)
    nats_M = 3 * tokens_M + rng.normal(0, 80, 30)
    for model, more in (("better", 0.0), ("worse", 0.02)):
        sums_M = nats_M + more * tokens_M + rng.normal(0, 0.5, 30)
        loss = float(sums_M.sum() / tokens_M.sum())
        path = write_result(tmp_path, model, 100, {"lmsat_loss": {"loss": (loss, 0.1)}})
        data = json.loads(path.read_text("utf-8"))
        data["config"]["lmsat"]["arrays"] = str(path.with_suffix(".safetensors"))
        path.write_text(json.dumps(data), "utf-8")
        arrays = {"loss/by_document": sums_M, "loss/by_document_tokens": tokens_M}
        save_file(arrays, path.with_suffix(".safetensors"))
    collected = Analyses.of(tmp_path)
    found = leaderboard_of(collected)
    assert [(row["model"], row["place"]) for row in found.rows] == [("better", 1), ("worse", 2)]
    assert [row["place"] for row in leaderboard(collected.table).rows] == [1, 1]


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def test_every_format(board):
    values = pd.read_csv(io.StringIO(as_csv(board)))
    assert values.loss.tolist() == [row["loss"] for row in board.rows]
    assert NAME in values.model.tolist()
    assert json.loads(FORMATS["json"](board))["rows"] == list(board.rows)
    page = _Page()
    page.feed(html(board))
    assert "script" not in page.tags
    assert NAME in page.texts
    assert page.tags.count("tr") == 1 + len(board.rows)
    assert page.tags.count("td") + page.tags.count("th") == (1 + len(board.rows)) * len(board.columns)
    for part in ("http://", "https://", "src=", "url("):
        assert part not in html(board)
    lines = [line for line in markdown(board).splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(board.columns) + 1}
    assert "<script" not in markdown(board)


@pytest.mark.parametrize("models", [1, 30])
def test_figure(models, tmp_path):
    rows = [row for index in range(models) for row in loss_rows(f"org/model-{index}", 3 + index / 50)]
    figure = leaderboard(table_of(rows)).plot()
    write_figure(figure, tmp_path / "f.png")
    (axes,) = figure.axes
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert len(boxes) == models
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_hub_folder(tree, board, tmp_path):
    write_result(tree, "org/m4", 12000, {"gsm8k": {"exact_match": (0.0123, 0.003)}}, 4**4 * 10**6)
    folder = tmp_path / "hub"
    write_hub_folder(board, Analyses.of(tree, tokens_per_step=2_000_000), folder)
    _, matter, text = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    card = yaml.safe_load(matter)
    named = {one["config_name"]: one["data_files"][0]["path"] for one in card["configs"]}
    ranked = pd.read_parquet(folder / named["leaderboard"])
    assert ranked.model.tolist() == [row["model"] for row in board.rows]
    assert ranked.loss.tolist() == pd.read_csv(folder / "leaderboard.csv").loss.tolist()
    results = pd.read_parquet(folder / named["results"])
    assert set(results.revision) == {"step12000"}
    assert set(results.model) == set(ranked.model)
    assert "<script" not in text
    hub = pytest.importorskip("huggingface_hub")
    (path,) = folder.rglob("*.yaml")
    assert path.relative_to(folder).as_posix() == "eval_results/org/m4/.eval_results/gsm8k_none.yaml"
    (entry,) = hub.parse_eval_result_entries(yaml.safe_load(path.read_text("utf-8")))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "gsm8k", 1.23)
    assert load_results(folder / "results" / "org" / "m4").model.unique().tolist() == ["org/m4"]
    assert all(path.resolve().is_relative_to(folder.resolve()) for path in folder.rglob("*"))


class FakeApi:
    def __init__(self, error=None):
        self.calls, self.error = [], error

    def create_repo(self, repo_id, **more):
        self.calls.append(("create", repo_id, more))

    def upload_folder(self, **more):
        if self.error is not None:
            raise self.error
        self.calls.append(("upload", more["repo_id"], more))


def test_push(tmp_path):
    api = FakeApi()
    push(tmp_path, "org/board", api)
    assert [call[:2] for call in api.calls] == [("create", "org/board"), ("upload", "org/board")]
    assert all(call[2]["repo_type"] == "dataset" for call in api.calls)
    assert api.calls[1][2]["folder_path"] == tmp_path
    with pytest.raises(LmsatError, match="cannot be pushed to org/board \\(no token\\): `hf auth login`"):
        push(tmp_path, "org/board", FakeApi(ValueError("no token\nmore")))


def test_command(tree, tmp_path, capsys):
    arguments = ["leaderboard", str(tree), "--tokens-per-step", "2000000"]
    assert main([*arguments, "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 7
    assert main(arguments) == 0
    assert "Ranked by loss" in capsys.readouterr().out
    assert main([*arguments, "--format", "html", "--output", str(tmp_path / "l.html")]) == 0
    assert (tmp_path / "l.html").read_text("utf-8").startswith("<!DOCTYPE html>")


def test_bad_input(tree, tmp_path, capsys):
    nothing, others, file = tmp_path / "nothing", tmp_path / "others", tmp_path / "file"
    nothing.mkdir()
    file.write_text("", "utf-8")
    write_result(others, "m", 1, {"nobody_knows": {"acc": 0.5}})
    cases = [
        ([nothing], "holds no lm-eval results"),
        ([others], "neither lmsat_loss nor scores of a task whose chance level is known"),
        ([tree, "--corpus", "x"], "nothing in"),
        ([tree, "--push", "a/b"], "--push a/b needs a folder to upload: add --hub FOLDER"),
        ([tree, "--output", file], "takes no table for people"),
        ([tree, "--hub", file / "sub"], f"cannot write to {file / 'sub'}"),
        ([tree, "--format", "csv", "--output", file / "x.csv"], "cannot write"),
    ]
    for arguments, said in cases:
        assert main(["leaderboard", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error


@pytest.mark.skipif(not EVALS.is_dir(), reason="needs EleutherAI's published scores")
def test_published_scores_of_pythia():
    found = leaderboard(load_results(EVALS))
    assert [row["model"].rpartition("-")[2] for row in found.rows] == ["410m", "160m", "70m"]
    path = next(EVALS.rglob("*410m*step143000*"))
    scores = json.loads(path.read_text("utf-8"))["results"]
    chances = {
        **dict.fromkeys(("arc_challenge", "arc_easy", "logiqa", "sciq"), 0.25),
        **dict.fromkeys(("piqa", "winogrande", "wsc"), 0.5),
        "lambada_openai": 0.0,
    }
    own = [(scores[task]["acc"] - chance) / (1 - chance) for task, chance in chances.items()]
    subjects = [
        (score["acc"] - 0.25) / 0.75 for task, score in scores.items() if task.startswith("hendrycksTest-")
    ]
    assert found.rows[0]["downstream"] == pytest.approx((sum(own) + np.mean(subjects)) / 9)
