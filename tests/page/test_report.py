"""``lmsat report``: the page holds what the result files say, as text, works in a browser, and needs nothing else."""

from __future__ import annotations

import csv
import json
from urllib.parse import unquote

import pytest
from chromium import BROWSER, run_in_page
from html_page import Page
from report_trees import HOSTILE, MODELS, TASKS, read_analyses
from result_trees import CORPUS, STEPS, TOKENS_PER_STEP, write_result

from lmsat_plugin.cli.main import main
from lmsat_plugin.page import sections
from lmsat_plugin.page.report import write_report


@pytest.fixture(scope="module")
def page(report):
    return Page((report / "index.html").read_text("utf-8"))


@pytest.fixture(scope="module")
def written(tree):
    """All that the result files hold, read by hand: by model, step, task and metric."""
    found = {}
    for file in tree.glob("*/*/results_*.json"):
        data = json.loads(file.read_text("utf-8"))
        checkpoint = data["config"]["lmsat"]["checkpoint"]
        for task, entry in data["results"].items():
            for key, value in entry.items():
                if key.endswith(",none") and "_stderr" not in key:
                    metric = key.removesuffix(",none")
                    stderr = entry[f"{metric}_stderr,none"]
                    found[checkpoint["model"], checkpoint["step"], task, metric] = value, stderr
    return found


def test_names_are_text(page):
    assert HOSTILE in page.text
    assert [one for one in page.named("script") if one.get("type") != "application/json"] == [{}]
    assert HOSTILE in page.column("saturation", "model")
    assert any(HOSTILE in attributes["alt"] for attributes in page.named("img"))


def test_names_are_no_paths(tree, report):
    above = tree.parent.parent
    outside = [path for path in above.rglob("*") if path.suffix in (".svg", ".png", ".pdf", ".html", ".csv")]
    assert outside
    assert all(path.is_relative_to(report) for path in outside)
    assert {path.suffix for path in (report / "figures").iterdir()} == {".svg", ".pdf"}


def test_nothing_comes_from_elsewhere(page, report):
    for _, attributes in page.elements:
        assert "src" not in attributes or attributes["src"].startswith("data:image/")
        href = attributes.get("href") or "#"
        assert href.startswith(("#", "data:text/csv")) or (report / unquote(href)).is_file(), href
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    inside = {attributes["href"][1:] for attributes in page.named("a") if attributes["href"].startswith("#")}
    assert inside <= set(identifiers)
    images = page.named("img")
    assert images
    assert all(attributes["alt"] for attributes in images)
    assert len(images) == len(list((report / "figures").glob("*.svg")))


def test_every_value_is_in_the_page(page, written):
    header, *rows = page.tables["values"]
    assert len(rows) == len(MODELS) * len(STEPS)
    seen = 0
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        step = int(cells["step"].replace(",", ""))
        assert int(cells["tokens"].replace(",", "")) == step * TOKENS_PER_STEP
        for heading in header[4:-1]:
            value, stderr = written[cells["model"], step, *heading.split(" ")]
            shown, _, error = cells[heading].partition(" ± ")
            assert float(shown) == pytest.approx(value, rel=1e-4)
            assert (float(error) if error else "N/A") == pytest.approx(stderr)
            seen += 1
    assert seen == len(written)


def test_final_values(page, report, written):
    last = {key: value for key, value in written.items() if key[1] == STEPS[-1]}
    with (report / "final.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(last) == len(page.tables["final"]) - 1
    for row in rows:
        value, _ = last[row["model"], int(row["step"]), row["task"], row["metric"]]
        assert float(row["value"]) == value


def test_every_value_has_its_file(page, tree, report):
    files = [(report / unquote(link)).resolve() for link in page.links]
    assert sorted(files) == sorted(file.resolve() for file in tree.glob("*/*/results_*.json"))
    numbers = dict(zip(page.column("sources", "#"), files, strict=True))
    header, *rows = page.tables["values"]
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        noted = json.loads(numbers[cells["files"]].read_text("utf-8"))["config"]["lmsat"]
        assert noted["checkpoint"]["model"] == cells["model"]
        assert noted["checkpoint"]["revision"] == cells["revision"]
    assert set(page.column("sources", "corpus sha256")) == {("ab" * 32)[:12]}
    assert set(page.column("sources", "lm-eval")) == {"0.4.13"}


def test_verdicts_come_first_and_are_printed(tree, page, run):
    verdicts = dict(zip(page.column("saturation", "model"), page.column("saturation", "verdict"), strict=True))
    assert verdicts[HOSTILE] == "saturates"
    assert verdicts["plain"] == "improving"
    found = read_analyses(tree)
    threshold = next(one.threshold for one in found.emergence if one.metric == "acc")
    assert abs(threshold - TASKS["arc_easy"][1]) < 0.2
    said = [f"{one.model}: {one.verdict}: {one.reason}." for one in found.saturation]
    first = page.text[: page.text.index("Verdicts on saturation", page.text.index(HOSTILE))]
    for sentence in (*said, f"emergent below a loss of {threshold:.3f}"):
        assert sentence in first
        assert sentence in run[1]
    assert run[1].splitlines()[-1] == str(tree / "report" / "index.html")


def test_results_without_ours(tmp_path, capsys):
    for step in STEPS:
        write_result(tmp_path / "tree", "m", step, {"piqa": {"acc": (0.6, 0.01), "acc_norm": (0.6, 0.01)}})
    assert main(["report", str(tmp_path / "tree"), "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(f"{tmp_path / 'out' / 'index.html'}\n")
    page = Page((tmp_path / "out" / "index.html").read_text("utf-8"))
    # Without lmsat_loss each task's first score has a verdict. This one is constant, and says nothing.
    for said in (printed, page.text):
        assert "1 series of piqa acc: 1 unclear" in said
    for title in ("Emergence:", "Scaling law:", "Rank of the LM head:"):
        assert title in page.text.partition("What is missing, and why")[2]
    assert len(page.tables["values"]) == 1 + len(STEPS)
    assert page.column("saturation", "metric") == ["acc"]
    assert page.column("saturation", "verdict") == ["unclear"]
    assert str(tmp_path) not in page.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{root}/empty"], "holds no lm-eval results"),
        (["{root}/nowhere"], "is neither a folder nor a file"),
        (["{root}/two"], "results on a, b, which do not compare: choose one with --corpus NAME"),
        (["{root}/two", "--corpus", "c"], "no result has --corpus c: give some of a, b"),
        (["{root}/two", "--corpus", "a", "--output", "{root}/file/x"], "cannot write to {root}/file/x"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, capsys, arguments, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for corpus in "ab":
        write_result(tmp_path / "two", "m", 1, {"lmsat_loss": {"loss": 3.0}}, corpus=corpus)
    assert main(["report", *(text.format(root=tmp_path) for text in arguments)]) == 2
    output = capsys.readouterr()
    assert said.format(root=tmp_path) in output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


def test_tables_too_broad_for_paper_are_left_out_there(tree, tmp_path, monkeypatch):
    monkeypatch.setattr("lmsat_plugin.page.report._ON_PAPER", 8)
    monkeypatch.setattr("lmsat_plugin.page.report.write_figures", lambda *_: [])
    found = Page(write_report(read_analyses(tree, tokens_per_step=None), tmp_path).read_text("utf-8"))
    broad = {one["id"] for one in found.named("section") if one.get("class") == "table broad"}
    assert broad == {name for name, rows in found.tables.items() if len(rows[0]) > 8} != set()
    assert found.text.count("have no room on paper") == len(broad) < len(found.tables)


needs_chromium = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")


@needs_chromium
def test_table_sorts_filters_and_turns_pages(report):
    found, console = run_in_page(
        report / "index.html",
        """
        const section = document.querySelector("#values");
        const heading = (name) => [...section.querySelectorAll("th")].find((th) => th.textContent === name);
        const column = (name) => [...section.querySelectorAll("tbody tr")].map((row) =>
            row.cells[[...section.querySelectorAll("th")].indexOf(heading(name))].textContent);
        const count = () => section.querySelector(".count").textContent;
        const found = { alerts: 0, start: [count(), column("model").length] };
        section.querySelector(".next").click();
        found.second = [count(), column("model").length, section.querySelector(".next").disabled];
        const loss = heading("lmsat_loss loss");
        loss.querySelector("button").click();
        found.rising = [loss.getAttribute("aria-sort"), column("lmsat_loss loss")];
        loss.querySelector("button").click();
        found.falling = [loss.getAttribute("aria-sort"), column("lmsat_loss loss")];
        heading("model").querySelector("button").click();
        found.other = [loss.getAttribute("aria-sort"), heading("model").getAttribute("aria-sort")];
        const input = section.querySelector("input");
        input.value = "PLAIN step512";
        input.dispatchEvent(new Event("input"));
        found.filtered = [count(), column("model"), column("step")];
        input.value = "nothing like it";
        input.dispatchEvent(new Event("input"));
        found.none = [count(), column("model")];
        found.width = document.documentElement.scrollWidth <= innerWidth;
        return found;
        """,
    )
    assert console == []
    assert found["start"] == ["1 to 50 of 66 rows", 50]
    assert found["second"] == ["51 to 66 of 66 rows", 16, True]
    for order, sign in (("rising", 1), ("falling", -1)):
        values = [float(text.split(" ")[0]) for text in found[order][1]]
        assert found[order][0] == {1: "ascending", -1: "descending"}[sign]
        assert len(values) == 50
        assert values == sorted(values, key=lambda value, sign=sign: sign * value)
    assert found["rising"][1][0] != found["falling"][1][0]
    assert found["other"] == [None, "ascending"]
    assert found["filtered"] == ["1 row (of 66)", ["plain"], ["512"]]
    assert found["none"] == ["0 rows (of 66)", []]
    assert found["width"]


@needs_chromium
def test_names_do_nothing_in_the_browser(report):
    found, console = run_in_page(
        report / "index.html",
        """
        const said = document.querySelector("#saturation tbody").textContent;
        const scripts = document.querySelectorAll("script:not([type])");
        return [scripts.length, said, [...document.images].every((one) => one.naturalWidth > 0)];
        """,
    )
    # The page's own and the test's.
    assert found[0] == 2
    assert HOSTILE in found[1]
    assert found[2]
    assert console == []
    assert CORPUS in (report / "index.html").read_text("utf-8")


def test_results_that_say_no_more_than_a_loss(tmp_path):
    """As of a script of one's own: neither standard errors nor shots, nor what was measured when."""
    for size in (1, 2):
        for step in (1000, 2000, 4000):
            config = {"model": "lmsat", "model_args": {"pretrained": "m" * size, "revision": f"step{step}"}}
            result = {"results": {"lmsat_loss": {"loss,none": 3 + size / step}}, "config": config}
            place = tmp_path / ("m" * size) / f"step{step}"
            place.mkdir(parents=True)
            (place / "results_1.json").write_text(json.dumps(result), "utf-8")
    page = write_report(read_analyses(tmp_path, tokens_per_step=None), tmp_path / "report")
    assert "loss-by-step.svg" in page.read_text("utf-8")


def test_a_used_folder_keeps_nothing_of_the_report_before(tmp_path, monkeypatch):
    """Figures and tables that the new report does not write are gone; what is not a report's stays."""
    for step in range(1, 9):
        write_result(tmp_path / "a", "m", step, {"lmsat_loss": {"loss": 9 - step / 8}}, 10**6)
    write_result(tmp_path / "b", "m", 1, {"lmsat_head": {"effective_rank": 9}})
    folder, all_figures = tmp_path / "report", sections.all_figures
    monkeypatch.setattr(sections, "all_figures", lambda analyses: all_figures(analyses)[:1])
    write_report(read_analyses(tmp_path / "a"), folder)
    assert {"saturation.csv", "figures"} <= {path.name for path in folder.iterdir()}
    assert list(folder.glob("figures/*.pdf"))
    (folder / "figures/mine.svg").touch()
    (folder / "mine.csv").touch()
    monkeypatch.setattr(sections, "all_figures", lambda analyses: [])
    write_report(read_analyses(tmp_path / "b"), folder)
    assert [path.name for path in (folder / "figures").iterdir()] == ["mine.svg"]
    assert {path.stem for path in folder.glob("*.csv")} == {"mine", "final", "values", "sources"}
