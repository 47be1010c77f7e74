"""The column ``variant``: what tells results apart, of the model's settings and of the text's; names stay bare."""

from __future__ import annotations

import pytest
from result_files import new, old, ours, write
from result_trees import write_result

from lmsat_plugin.analysis import find_emergence, find_saturation
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results import Results, load_results
from lmsat_plugin.results.series import labelled
from lmsat_plugin.results.variants import label

ARGS = {"pretrained": "a/b", "revision": "step1"}


def told_apart(tmp_path, name: str) -> list[tuple]:
    """Return the names, variants, tasks and values of a tree."""
    table = load_results(tmp_path)
    variants = table.variant.where(table.variant.notna(), None)
    return sorted(zip(table[name], variants, table.task, table.value, strict=True), key=str)


def test_variants_of_a_corpus(tmp_path):
    write(tmp_path / "results_1.json", ours(1.0, args=ARGS))
    write(tmp_path / "results_2.json", ours(2.0, args=ARGS, corpus={"max_tokens": 100, "sha256": "b" * 64}))
    write(tmp_path / "results_3.json", ours(3.0, args={**ARGS, "revision": "step2"}))
    write(tmp_path / "results_4.json", ours(4.0, args=ARGS, corpus={"corpus": "pile", "window": 64}))
    assert told_apart(tmp_path, "corpus") == [
        ("pile", None, "lmsat_loss", 4.0),
        ("sample", "max_tokens=100", "lmsat_loss", 2.0),
        ("sample", "max_tokens=50000", "lmsat_loss", 1.0),
        ("sample", "max_tokens=50000", "lmsat_loss", 3.0),
    ]
    assert set(load_results(tmp_path).model) == {"a/b"}
    assert Results.read(tmp_path).texts == {
        "lmsat_loss": ("pile", "sample (max_tokens=100)", "sample (max_tokens=50000)")
    }


@pytest.mark.parametrize(
    ("change", "variants"),
    [
        ({"corpus": {"sha256": "b" * 64}}, {"sha256=aaaaaaaa", "sha256=bbbbbbbb"}),
        ({"corpus": {"limit": 3}}, {"", "limit=3"}),
        ({"corpus": {"max_tokens": None}}, {"", "max_tokens=50000"}),
        ({"settings": {"ranks": [8, 16]}}, {"", "ranks=[8, 16]"}),
        ({"corpus": {"seed": 1, "window": 64}}, {"seed=0, window=2048", "seed=1, window=64"}),
    ],
)
def test_what_is_told_apart(tmp_path, change, variants):
    write(tmp_path / "results_1.json", ours(1.0))
    write(tmp_path / "results_2.json", ours(2.0, **change))
    results = Results.read(tmp_path)
    assert set(results.table.variant.fillna("")) == variants
    assert set(results.table.corpus) == {"sample"}
    # Each can be chosen as it is named, commas and all, and nothing then differs.
    for variant, value in zip(results.table.variant, results.table.value, strict=True):
        if isinstance(variant, str):
            chosen = results.select(variant=variant).table
            assert (chosen.value.tolist(), chosen.variant.isna().all()) == ([value], True)


def test_variants_of_a_model(tmp_path):
    write(tmp_path / "1/results_1.json", new(args=ARGS))
    write(tmp_path / "2/results_1.json", new(args="pretrained=a/b,revision=step1,head_rank=32,device=cpu"))
    both = {**ARGS, "head_rank": 32, "batch_size": 8, "trust_remote_code": True, "load_in_8bit": False}
    # The same again, and a task for which there is nothing else: it stays with the others of its rank.
    write(tmp_path / "3/results_1.json", new({"arc": {"acc,none": 0.25}}, both))
    write(tmp_path / "4/results_1.json", new({"piqa": {"acc,none": 0.75}}, both, date=1.8e9))
    write(tmp_path / "5/results_1.json", new({"piqa": {"acc,none": 0.125}}, ARGS, config={"limit": 10}))
    write(tmp_path / "6/results_1.json", new(args={"pretrained": "c/d", "head_rank": 8}))
    assert told_apart(tmp_path, "model") == [
        ("a/b", "head_rank=32", "arc", 0.25),
        ("a/b", "head_rank=32", "piqa", 0.75),
        ("a/b", "limit=10", "piqa", 0.125),
        ("a/b", None, "piqa", 0.5),
        ("c/d", None, "piqa", 0.5),
    ]


def test_types_and_folders_are_told_apart_where_they_compete(tmp_path):
    def measured(folder, step, dtype, place):
        args = {"pretrained": f"{place}/run/step{step}"}
        write(tmp_path / folder / "results_1.json", new(args=args, config={"model_dtype": f"torch.{dtype}"}))

    def variants() -> list[str]:
        table = load_results(tmp_path)
        assert set(table.model) == {"run"}
        return sorted(table.variant.fillna(""))

    # Checkpoints of one series that were saved in several types are one series.
    measured("1", 1, "float32", "/a")
    measured("2", 2, "float16", "/a")
    assert variants() == ["", ""]
    measured("3", 2, "float32", "/a")
    assert variants() == ["dtype=float16", "dtype=float32", "dtype=float32"]
    (tmp_path / "3" / "results_1.json").unlink()
    measured("3", 2, "float16", "/b")
    assert variants() == ["folder=/a/run", "folder=/a/run", "folder=/b/run"]


def test_old_files_have_no_variant(tmp_path):
    write(tmp_path / "160m_step1000.json", old())
    assert load_results(tmp_path).variant.isna().all()


def test_names_for_people(tmp_path):
    assert (label("a/b", "head_rank=8"), label("a/b", None), label("a/b", "")) == ("a/b (head_rank=8)", "a/b", "a/b")
    write(tmp_path / "1/results_1.json", new(args=ARGS))
    table = load_results(tmp_path)
    assert labelled(table).model.tolist() == ["a/b"]
    assert labelled(table.drop(columns="variant")).model.tolist() == ["a/b"]
    write(tmp_path / "2/results_1.json", new(args={**ARGS, "head_rank": 8}))
    assert labelled(load_results(tmp_path)).model.tolist() == ["a/b", "a/b (head_rank=8)"]


@pytest.fixture
def both(tmp_path) -> Results:
    """A model with two heads, on two amounts of one corpus; its head, which reads no text; and a task."""
    for rank in (None, 8):
        args = {**ARGS, **({"head_rank": rank} if rank else {})}
        for tokens in (100, 200):
            value = 1.0 + tokens + (rank or 0) / 100
            write(tmp_path / f"{rank}{tokens}/results_1.json", ours(value, args=args, corpus={"max_tokens": tokens}))
        write(tmp_path / f"{rank}/results_1.json", new({"piqa": {"acc,none": 0.5 - (rank or 0) / 100}}, args))
    return Results.read(tmp_path)


def test_a_variant_is_chosen(both):
    assert set(both.table.variant.dropna()) == {
        *("head_rank=8", "head_rank=8, max_tokens=100", "head_rank=8, max_tokens=200"),
        *("max_tokens=100", "max_tokens=200"),
    }
    # The text's settings are asked of what read a text; the model's of all.
    assert sorted(both.select(variant="max_tokens=100").table.value) == [0.42, 0.5, 101.0, 101.08]
    assert sorted(both.select(variant="head_rank=8").table.value) == [0.42, 101.08, 201.08]
    one = both.select(variant="head_rank=8, max_tokens=200")
    assert sorted(one.table.value) == [0.42, 201.08]
    assert one.table.variant.isna().all(), "what still differs is nothing"
    assert set(both.select(variant="max_tokens=100").table.variant.fillna("")) == {"", "head_rank=8"}
    for variant in ("head_rank=9", "max_tokens=10", "nonsense", "head_rank=8, x=1", ""):
        with pytest.raises(LmsatError, match="give one of 'head_rank=8', 'head_rank=8, max_tokens=100'"):
            both.select(variant=variant)


def test_the_models_part_of_a_variant(both):
    assert {name: both.model_variant(name) for name in both.variants} == {
        "": None,
        "head_rank=8": "head_rank=8",
        "max_tokens=100": None,
        "max_tokens=200": None,
        "head_rank=8, max_tokens=100": "head_rank=8",
        "head_rank=8, max_tokens=200": "head_rank=8",
    }
    assert both.model_variant(None) is both.model_variant(float("nan")) is None
    assert both.variants["head_rank=8, max_tokens=100"].text == "max_tokens=100"


def test_texts_that_do_not_compare_are_named_with_what_chooses_one(both, tmp_path):
    with pytest.raises(LmsatError, match=r"sample \(max_tokens=100\), sample \(max_tokens=200\).*--variant KEY=VALUE"):
        both.check_one_text()
    both.select(variant="max_tokens=100").check_one_text()
    both.check_one_text("piqa")
    write(tmp_path / "pile/results_1.json", ours(1.0, args=ARGS, corpus={"corpus": "pile"}))
    with pytest.raises(LmsatError, match=r"lmsat_loss on pile, sample .*--corpus NAME"):
        Results.read(tmp_path).check_one_text("lmsat_loss")


def test_a_corpus_may_be_named_like_a_label(tmp_path):
    """Nothing parses names: a file's name with brackets is one name."""
    name = "data (1).jsonl"
    for number, corpus in enumerate((name, "data", "data (2).jsonl")):
        write(tmp_path / f"{number}/results_1.json", ours(1.0 + number, args=ARGS, corpus={"corpus": corpus}))
    results = Results.read(tmp_path)
    assert set(results.table.corpus) == {name, "data", "data (2).jsonl"}
    assert results.table.variant.isna().all()
    assert results.select([name]).table.value.tolist() == [1.0]
    write(tmp_path / "3/results_1.json", ours(9.0, args=ARGS, corpus={"corpus": name, "max_tokens": 7}))
    results = Results.read(tmp_path)
    assert results.texts["lmsat_loss"][1:3] == (f"{name} (max_tokens=7)", f"{name} (max_tokens=50000)")
    assert results.select([name], "max_tokens=7").table.value.tolist() == [9.0]


def test_corpora_come_in_the_order_in_which_they_are_chosen(tmp_path):
    for number, corpus in enumerate("abc"):
        write(tmp_path / f"{number}/results_1.json", ours(1.0 + number, args=ARGS, corpus={"corpus": corpus}))
    write(tmp_path / "results_1.json", new(args=ARGS))
    results = Results.read(tmp_path)
    assert results.corpora is None
    chosen = results.select(["c", "a"])
    assert chosen.corpora == ("c", "a")
    assert chosen.table.corpus.dropna().tolist() == ["c", "a"]
    assert "piqa" in set(chosen.table.task), "what is of no corpus stays"
    assert chosen.select(variant=None).corpora == ("c", "a")
    with pytest.raises(LmsatError, match="--corpus d: give some of a, b, c"):
        results.select(["d"])


def test_settings_of_the_text_do_not_part_a_model_from_its_scores(tmp_path):
    """lmsat_anisotropy on two amounts of text gives lmsat_loss a variant, but the losses are on one text."""
    for model in "abc":
        for step in range(1, 6):
            values = {"lmsat_loss": {"loss": 4.0 - step / 10}, "piqa": {"acc": (0.5 + step / 100, 0.01)}}
            write_result(tmp_path, model, step, values)
            for tokens in (100, 200):
                args = {"pretrained": model, "revision": f"step{step}"}
                content = ours(0.5, args=args, corpus={"corpus": "held-out", "max_tokens": tokens})
                content["results"] = {"lmsat_anisotropy": {"anisotropy_last,none": tokens / 1000}}
                content["config"]["lmsat"]["probes"] = {"anisotropy": {}}
                write(tmp_path / f"{model}{step}-{tokens}" / "results_9.json", content)
    results = Results.read(tmp_path)
    assert {"max_tokens=100", "max_tokens=200"} <= set(results.table.variant.dropna())
    (found,) = [one for one in find_emergence(results) if one.metric == "acc"]
    assert (found.n_points, found.n_models) == (15, 3)
    assert {one.label for one in find_saturation(results)} == {"a", "b", "c"}


def test_averages_of_half_types_are_no_mixture(tmp_path):
    """They are in float32, and a series of their own."""
    types = {"step1": "bfloat16", "step2": "bfloat16", "average:2@step2": "float32"}
    for number, (step, dtype) in enumerate(types.items()):
        written = ours(float(number), args={**ARGS, "revision": step})
        written["config"]["lmsat"]["dtype"] = dtype
        write(tmp_path / f"results_{number}.json", written)
    assert not Results.read(tmp_path).warnings


def test_checkpoints_of_several_types_are_said(tmp_path, caplog):
    """A series stays one, and nobody takes its steps for training alone."""
    types = {"step1": "bfloat16", "step2": "float32", "step3": "float32"}
    for number, (step, dtype) in enumerate(types.items()):
        written = ours(float(number), args={**ARGS, "revision": step})
        written["config"]["lmsat"]["dtype"] = dtype
        write(tmp_path / f"results_{number}.json", written)
    results = Results.read(tmp_path)
    assert results.table.variant.isna().all()
    sentence = "the checkpoints of a/b were computed in bfloat16 and in float32"
    assert [sentence in warning for warning in results.warnings] == [True]
    caplog.clear()
    for _ in range(2):
        load_results(tmp_path)
    assert caplog.text.count(sentence) == 2, "it is said each time, though files are read once"

    # Where one checkpoint is there in both types, the variant tells them apart.
    written = ours(9.0, args={**ARGS, "revision": "step1"})
    written["config"]["lmsat"]["dtype"] = "float32"
    write(tmp_path / "results_9.json", written)
    results = Results.read(tmp_path)
    assert set(results.table.variant) == {"dtype=bfloat16", "dtype=float32"}
    assert not results.warnings
