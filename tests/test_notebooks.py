"""The package as notebooks use it: names that complete, examples that run, results that are tables and pictures."""

from __future__ import annotations

import doctest
import io
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from result_trees import STEPS, Made, write_result, write_tree
from token_loss_trees import MadeText

import lmsat_plugin
from lmsat_plugin import Answers
from lmsat_plugin.analysis import find_saturation
from lmsat_plugin.analysis.scaling_laws.run_curves import fit_curves
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.tree import Results

FUNCTIONS = [name for name in lmsat_plugin.__all__ if type(getattr(lmsat_plugin, name)).__name__ == "function"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, checkpoint):
    """Return a folder with results of two models, and with a run of checkpoints."""
    folder = tmp_path_factory.mktemp("notebook")
    write_tree(folder / "results", [Made("small", 10**6, rises_from=2000), Made("large", 10**8)], steps=STEPS)
    for step in (1, 8):
        shutil.copytree(checkpoint("gpt_neox"), folder / "run" / f"step{step}")
    text = MadeText()
    for step in (1, 2, 3):
        text.write(folder / "token-losses", step, np.full(len(text.ids_N), 3.0 / step))
    return folder


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_of_each_public_function_runs(name, place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    if name == "report":
        # A page of many checkpoints takes long.
        write_result(tmp_path / "results", "m", 1, {"lmsat_loss": {"loss": 2.0}})
        monkeypatch.chdir(tmp_path)
    function = getattr(lmsat_plugin, name)
    [example] = doctest.DocTestFinder(recurse=False).find(
        function, name, globs={"lmsat_plugin": lmsat_plugin, "np": np}
    )
    assert example.examples, f"{name} has no example"
    said: list[str] = []
    with mpl.rc_context({"backend": "agg"}):
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert not said, "".join(said)


def test_names_complete_and_are_typed():
    names = dir(lmsat_plugin)
    assert {"measure", "sweep", "report", "leaderboard", "saturation", "fit", "emergence", "compare", "plot"} <= {
        *names
    }
    assert not {"TYPE_CHECKING", "annotations", "lazy_names"} & {*names}
    assert (Path(lmsat_plugin.__file__).parent / "py.typed").is_file()


def test_naming_a_function_imports_no_torch():
    code = "import sys, lmsat_plugin as l; l.saturation, l.sweep, l.plot; print(*{'torch', 'lm_eval'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_results_are_lists_tables_and_html(place):
    verdicts = lmsat_plugin.saturation(place / "results")
    assert isinstance(verdicts, list)
    assert verdicts == find_saturation(Results.read(place / "results"))
    frame = verdicts.to_frame()
    assert frame.verdict.tolist() == [each.verdict for each in verdicts]
    assert "geometry.anisotropy_jump_step" in frame
    assert "<table" in verdicts._repr_html_()
    for result in (
        lmsat_plugin.leaderboard(place / "results"),
        lmsat_plugin.compare((place / "results", "small"), (place / "results", "large")),
    ):
        assert len(result.to_frame()) > 1
        assert "<table" in result._repr_html_()
    assert Answers([]).to_frame().empty


def test_one_corpus_is_chosen_of_several(tmp_path):
    for step in STEPS:
        for corpus, loss in (("one", 9 - step / 10**4), ("two", 9.0 + step / 10**4)):
            write_result(tmp_path, "m", step, {"lmsat_loss": {"loss": loss}}, corpus=corpus)
    table = lmsat_plugin.load_results(tmp_path)
    for data in (tmp_path, Results.read(tmp_path), table):
        [one] = lmsat_plugin.saturation(data, corpus="one")
        [two] = lmsat_plugin.saturation(data, corpus=["two"])
        assert (one.corpus, two.corpus) == ("one", "two")
        assert one.final < two.final


def test_a_sweep_takes_a_configuration_and_models_with_keys(place, tmp_path):
    run = str(place / "run")
    options = {"tasks": ["lmsat_head"], "device": "cpu"}
    first = lmsat_plugin.sweep([{"pretrained": run, "revisions": ["step1"]}], output=tmp_path / "a", **options)
    assert first.table.revision.unique().tolist() == ["step1"]
    (tmp_path / "sweep.yaml").write_text(f"models: ['{run}']\ntasks: [lmsat_head]\noutput: unused\ndevice: cpu\n")
    second = lmsat_plugin.sweep(tmp_path / "sweep.yaml", output=tmp_path / "b")
    assert second.table.revision.unique().tolist() == ["step1", "step8"]
    with pytest.raises(LmsatError, match="add output=FOLDER"):
        lmsat_plugin.sweep([{"pretrained": run}])


def test_plots_go_into_the_callers_panels(place):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    verdicts = lmsat_plugin.saturation(place / "results")
    size = figure.get_size_inches().tolist()
    assert lmsat_plugin.plot(verdicts[0], ax=left) is figure
    assert left in figure.axes
    series = verdicts[0].series
    assert left.lines[0].get_xydata().tolist() == np.column_stack([series.at_K, series.values_K]).tolist()
    assert left.get_legend() is not None
    # Several panels share the place of one.
    assert lmsat_plugin.plot(verdicts, ax=right) is figure
    assert len(figure.axes) == 3
    assert min(axes.get_position().x0 for axes in figure.axes[1:]) >= 0
    assert figure.get_size_inches().tolist() == size
    figure.canvas.draw()
    board = Figure()
    assert lmsat_plugin.plot(lmsat_plugin.leaderboard(place / "results"), ax=board.subplots()) is board
    board.canvas.draw()
    with pytest.raises(LmsatError, match=r"make it with plt\.subplots"):
        lmsat_plugin.plot(verdicts, ax=Figure().add_axes((0, 0, 1, 1)))


def test_verdicts_are_drawn_over_tokens(place):
    rows = [{"model": "m", "step": step, "tokens": 1000 * step, "loss": 5 - step / 100} for step in range(1, 20)]
    [verdict] = lmsat_plugin.saturation(pd.DataFrame(rows))
    figure = lmsat_plugin.plot(verdict, x="tokens")
    assert figure.axes[0].lines[0].get_xdata().tolist() == [row["tokens"] for row in rows]
    assert "token" in figure.axes[0].get_xlabel()
    unknown = [{key: row[key] for key in ("model", "step", "loss")} for row in rows]
    with pytest.raises(LmsatError, match="tokens of m are not known"):
        lmsat_plugin.plot(lmsat_plugin.saturation(pd.DataFrame(unknown)), x="tokens")
    with pytest.raises(LmsatError, match="x=tokens cannot be drawn: give x='step'"):
        lmsat_plugin.plot(lmsat_plugin.leaderboard(place / "results"), x="tokens")


def test_fit_knows_what_the_command_knows(tmp_path):
    steps = np.arange(1, 31) * 100
    losses = pd.DataFrame({"model": "m", "step": steps, "loss": 2 + 9 * steps**-0.4})
    [curve] = lmsat_plugin.fit("curve", losses, at=6000, repetitions=0)
    assert curve == fit_curves(losses, at=6000, repetitions=0)[0]
    assert curve.final.value == pytest.approx(2 + 9 * 6000**-0.4, rel=1e-3)
    n = np.tile(np.geomspace(3e7, 3e9, 9), 3)
    tokens = np.repeat([1e18, 1e19, 1e20], 9) / 6 / n
    runs = pd.DataFrame({"n_params": n, "tokens": tokens, "loss": 1.69 + 406.4 / n**0.34 + 410.7 / tokens**0.28})
    found = lmsat_plugin.fit("isoflop", runs, repetitions=0)
    assert found.a.value == pytest.approx(0.28 / (0.34 + 0.28), abs=0.01)
    assert len(found.to_frame()) == 3
    flops = 6 * n * 20 * n
    scores = pd.DataFrame({"n_params": n, "tokens": 20 * n, "score": np.exp(-3e4 / flops**0.22)})[:9]
    scores = scores.assign(model=[f"m{index}" for index in range(9)], step=1, task="quiz", metric="acc", chance=0.0)
    [direct] = lmsat_plugin.fit("direct", scores, repetitions=0)
    assert direct.laws[0].fitted.params["alpha"].value == pytest.approx(0.22, abs=1e-3)
    with pytest.raises(LmsatError, match="curve takes no given: leave it out"):
        lmsat_plugin.fit("curve", losses, {"E": 2.0})
    with pytest.raises(LmsatError, match=r"'curves' is not a law: give one of .*curve, isoflop, direct"):
        lmsat_plugin.fit("curves", losses)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda tree: lmsat_plugin.saturation(tree, repetition=3),
            r"saturation\(\) takes no 'repetition': .*repetitions?",
        ),
        (
            lambda tree: lmsat_plugin.report(tree, variants="a"),
            r"report\(\) takes no 'variants': did you mean variant\?",
        ),
        (lambda tree: lmsat_plugin.compare(tree, to="end"), r"compare\(\) takes no 'to': it takes given, at"),
        (lambda tree: lmsat_plugin.fit("curve", tree, robust=True), r"fit\('curve'\) takes no 'robust': it takes at,"),
        (lambda tree: lmsat_plugin.fit("kaplan-n", tree, robst=True), "did you mean robust"),
        (lambda tree: lmsat_plugin.learning(tree, seeds=1), "did you mean seed"),
        (lambda tree: lmsat_plugin.sweep(tree / "run", tasks="lmsat_head", devise="cpu"), "device"),
    ],
)
def test_unknown_keywords_are_sentences(place, call, said):
    with pytest.raises(LmsatError, match=said):
        call(place)


def test_errors_name_what_python_takes(tmp_path):
    for step in STEPS:
        for corpus in ("one", "two"):
            write_result(tmp_path, "m", step, {"lmsat_loss": {"loss": 3.0}}, corpus=corpus)
    few = pd.DataFrame({"n_params": [1e6, 1e7], "tokens": [1e9, 1e9], "loss": [4.0, 3.0]})
    both = (tmp_path, tmp_path)
    for call, said in [
        (lambda: lmsat_plugin.report(tmp_path), "corpus=NAME"),
        (lambda: lmsat_plugin.fit("curve", tmp_path), "corpus=NAME"),
        (lambda: lmsat_plugin.fit("chinchilla", few), "fix constants with given"),
        (lambda: lmsat_plugin.saturation(few.assign(step=1), task="a"), "leave out task and metric"),
        (lambda: lmsat_plugin.compare(*both, at="tokens"), "Results.read"),
    ]:
        with pytest.raises(LmsatError) as error:
            call()
        assert said in str(error.value)
        assert "--" not in str(error.value)


def test_learning_curves_are_drawn_over_tokens(tmp_path):
    steps = np.arange(1, 31) * 100
    losses = np.where(steps < 900, 6 * (steps / 900) ** -0.3, 6 * (steps / 900) ** -0.05)
    table = pd.DataFrame({"model": "m", "step": steps, "tokens": 2000 * steps, "loss": losses})
    by_steps = lmsat_plugin.fit("curve", table, repetitions=20)
    over_tokens = by_steps[0].over_tokens()
    assert by_steps[0].form == "broken"
    np.testing.assert_allclose(over_tokens.losses_at(2000.0 * steps), by_steps[0].losses_at(steps), rtol=1e-9)
    assert over_tokens.deceleration.value == pytest.approx(2000 * by_steps[0].deceleration.value)
    [axes] = [panel for panel in lmsat_plugin.plot(by_steps, x="tokens").axes if panel.lines]
    assert axes.lines[0].get_xdata().tolist() == (2000 * steps).tolist()
    assert axes.get_xlabel() == "tokens"
    uneven = lmsat_plugin.fit("curve", table.assign(tokens=steps**2), repetitions=0)
    with pytest.raises(LmsatError, match="not the same at each step"):
        lmsat_plugin.plot(uneven, x="tokens")


def test_learning_is_drawn_over_tokens(place):
    runs = lmsat_plugin.learning(place / "token-losses", repetitions=0)
    [axes] = lmsat_plugin.plot(runs, x="tokens").axes
    assert axes.lines[0].get_xdata().tolist() == [2000, 3000]
    assert "tokens_at" not in runs[0].to_dict()


def test_notebooks_cut_no_legend_off(place):
    """As IPython prints figures: with the bounding box of what takes part in the layout."""
    figure = lmsat_plugin.plot(lmsat_plugin.saturation(place / "results"))
    figure.set_dpi(50)
    whole, cut = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, format="png")
    figure.savefig(cut, format="png", bbox_inches="tight", pad_inches=0)
    sizes = [mpl.image.imread(io.BytesIO(each.getvalue())).shape for each in (whole, cut)]
    assert sizes[1][0] >= sizes[0][0] - 1
    assert sizes[1][1] >= sizes[0][1] - 1


def test_a_csv_is_read_as_the_commands_read_it(tmp_path):
    file = tmp_path / "losses.csv"
    table = pd.DataFrame({"model": "m", "step": range(100, 2100, 100)}).assign(loss=lambda own: 3 + 100 / own.step)
    table.to_csv(file, index=False)
    [found] = lmsat_plugin.saturation(file)
    [of_table] = lmsat_plugin.saturation(table)
    assert (found.verdict, found.best) == (of_table.verdict, of_table.best)


@pytest.mark.parametrize(
    ("column", "cells", "said"),
    [
        ("step", [0.5, 1.5, 2.5], "row 1 has step=0.5, which is no step"),
        ("step", [1, 2, 1e30], "row 3 has step=1e\\+30, which no training has"),
        ("model", ["m", None, "m"], "row 2 lacks a model"),
    ],
)
@pytest.mark.parametrize("analysis", [lmsat_plugin.saturation, fit_curves])
def test_rows_without_a_model_or_a_whole_step_are_refused(column, cells, said, analysis):
    table = pd.DataFrame({"model": "m", "step": [1, 2, 3], "loss": [3.0, 2.5, 2.0]}).assign(**{column: cells})
    with pytest.raises(LmsatError, match=said):
        analysis(table)


def test_what_is_no_path_is_a_sentence():
    for given in (3, pd.DataFrame({"a": [1]})):
        with pytest.raises(LmsatError, match="is no kind of path: give the folder"):
            lmsat_plugin.report(given)
