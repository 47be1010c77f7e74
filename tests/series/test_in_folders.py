"""Where checkpoints lie on disk: runs, stages, forms of one checkpoint, links, formats of training code."""

from __future__ import annotations

import json

import pytest
from checkpoint_folders import make_checkpoint, make_files, places

from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.checkpoint_files import check_checkpoint_folder, check_format
from lmsat_plugin.series.finding import find_checkpoints, find_series
from lmsat_plugin.series.selection import select
from lmsat_plugin.sweeps.config import load_config
from lmsat_plugin.sweeps.local import run_sweep


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["step20", "step3"], ["step3 - - 3", "step20 - - 20"]),
        # The form that transformers reads, of several.
        (["step3/hf", "step20/hf", "step20/gguf"], ["step3 - - 3", "step20 - - 20"]),
        (["step3/hf", "step3/ema"], ["step3 - - 3"]),
        (["step3/last", "step3/ema"], ["step3/ema - - 3", "step3/last - - 3"]),
        (["a/step3", "a/step20", "b/step3"], ["a/step3 a - 3", "a/step20 a - 20", "b/step3 b - 3"]),
        (["big-seed2/step3", "big-seed1/step3"], ["big-seed1/step3 seed1 - 3", "big-seed2/step3 seed2 - 3"]),
        (["a-seed1/step3", "b-seed1/step3"], ["a-seed1/step3 a-seed1 - 3", "b-seed1/step3 b-seed1 - 3"]),
        (["a/step3/hf", "b/step3/hf"], ["a/step3 a - 3", "b/step3 b - 3"]),
        (["a/checkpoints/step3", "b/checkpoints/step3"], ["a/step3 a - 3", "b/step3 b - 3"]),
        (["1/step3", "2/step3"], ["1/step3 1 - 3", "2/step3 2 - 3"]),
        # The last model of a run lies beside its checkpoints.
        (["a", "a/checkpoint-3", "b", "b/checkpoint-3"], ["a/checkpoint-3 a - 3", "b/checkpoint-3 b - 3"]),
        (
            ["stage1/step20", "stage2/step3", "stage2/step20"],
            ["stage1/step20 - stage1 20", "stage2/step3 - stage2 3", "stage2/step20 - stage2 20"],
        ),
        (
            ["a/stage1/step3", "a/stage2/step3", "b/stage1/step3"],
            ["a/stage1/step3 a stage1 3", "b/stage1/step3 b stage1 3", "a/stage2/step3 a stage2 3"],
        ),
        (
            ["stage2-ingredient1/step3", "stage2-ingredient2/step3"],
            ["stage2-ingredient1/step3 ingredient1 stage2 3", "stage2-ingredient2/step3 ingredient2 stage2 3"],
        ),
        (["checkpoints/step3", "logs/step4", ".cache/step5"], ["step3 - - 3"]),
        (["epoch_1/step_3", "epoch_2/step_20"], ["step_3 - - 3", "step_20 - - 20"]),
        (["1000", "200"], ["200 - - 200", "1000 - - 1000"]),
        # Models of folders below are no checkpoints of a run that has some.
        (["step3", "onnx/encoder"], ["step3 - - 3"]),
        (["step3", "backup/step2", "longctx/step2"], ["step3 - - 3", "longctx/step2 - longctx 2"]),
    ],
)
def test_layouts(tmp_path, folders, expected):
    for name in folders:
        make_checkpoint(tmp_path / "run" / name)
    found = find_series(str(tmp_path / "run"))
    assert places(found) == expected
    assert {each.model for each in found.checkpoints} == {"run"}
    assert len({each.name for each in found.checkpoints}) == len(expected)
    for each in found.checkpoints:
        assert (each.folder / "config.json").is_file()
        assert select(found.checkpoints, each.name) == [each]


def test_one_checkpoint_with_its_parts(tmp_path):
    """What lies in a checkpoint's folder are no checkpoints of their own."""
    run = tmp_path / "run"
    make_checkpoint(run / "checkpoint-5")
    make_checkpoint(run / "checkpoint-5" / "onnx")
    make_files(run / "checkpoint-5" / "global_step5", "mp_rank_00_model_states.pt")
    make_checkpoint(run / "step9" / "hf")
    for given, name in (("checkpoint-5", "checkpoint-5"), ("step9", "step9"), ("step9/hf", "step9")):
        [found] = find_checkpoints(str(run / given))
        assert (found.model, found.name, found.step) == ("run", name, int(name[-1]))


def test_formats_of_training_code_are_listed(tmp_path, capsys):
    run = tmp_path / "run"
    files = {
        "step1": (".metadata", "__0_0.distcp"),
        "step-2": ("model/__0_0.distcp",),
        "iter_0000003": ("mp_rank_00/model_optim_rng.pt",),
        "step-00000004": ("lit_model.pth", "model_config.yaml"),
        "5": ("model_config.json", "model/layer.safetensors"),
        "global_step6": ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"),
    }
    for name, inside in files.items():
        make_files(run / name, *inside)
    make_files(run / "global_step7", "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt")
    make_files(run / "step8", "README.md")
    make_files(run / "step9", "config.json")
    make_checkpoint(run / "step10")
    found = find_series(str(run))
    assert [each.step for each in found.checkpoints] == [1, 2, 3, 4, 5, 6, 9, 10]
    assert found.left_out == [
        ("global_step7", "optimiser states"),
        ("step8", "no config.json: it is no checkpoint, or not yet"),
    ]
    for each in found.checkpoints[:6]:
        with pytest.raises(LmsatError, match=r"not in transformers' format but in that of .*: convert it with"):
            check_checkpoint_folder(str(each.folder))
    with pytest.raises(LmsatError, match="has no weights"):
        check_checkpoint_folder(str(run / "step9"))
    assert main(["checkpoints", str(run), "--json"]) == 0
    sizes = {row["step"]: row["size"] for row in json.loads(capsys.readouterr().out)}
    assert sizes == {**dict.fromkeys((1, 2, 3, 4, 5, 6, 9)), 10: len("step10")}
    assert main(["checkpoints", str(run)]) == 0
    assert "Left out: global_step7 (optimiser states), step8 (no config.json" in capsys.readouterr().out


def test_files_of_training_code_are_checkpoints(tmp_path, capsys):
    """Where their names state a place; not those of an optimiser or of one process, nor in a checkpoint's folder."""
    run = tmp_path / "run"
    make_files(run / "checkpoints", "epoch=1-step=2000.ckpt", "epoch=3-step=3000-v1.ckpt", "last.ckpt")
    others = (
        "optimizer_5.pt",
        "rng_state_5.pth",
        "step_5-rank0.pt",
        "consolidated.00.pth",
        "loss=2.3.ckpt",
        "step5.txt",
    )
    make_files(run, "ckpt_1000.pt", "ckpt_9000.pth", "step4.pt", *others)
    make_files(run / "step4", ".metadata", "__0_0.distcp")
    make_files(run / "step7", "step_7.pt", "step_8.pt")
    make_checkpoint(run / "step10")
    make_files(run / "step10", "step_10.pt")
    found = find_series(str(run)).checkpoints
    names = {4: "step4", 7: "step7", 10: "step10", 1000: "ckpt_1000", 2000: "epoch=1-step=2000"}
    names |= {3000: "epoch=3-step=3000-v1", 9000: "ckpt_9000"}
    assert {each.step: each.name for each in found} == names
    files = {each.name: each.folder for each in found if each.folder.is_file()}
    assert {name: path.name for name, path in files.items()} == {
        "ckpt_1000": "ckpt_1000.pt",
        "epoch=1-step=2000": "epoch=1-step=2000.ckpt",
        "epoch=3-step=3000-v1": "epoch=3-step=3000-v1.ckpt",
        "ckpt_9000": "ckpt_9000.pth",
    }
    for path in files.values():
        with pytest.raises(LmsatError, match="convert it with `lmsat convert`, or set `config`"):
            check_format(path)
    assert main(["checkpoints", str(run), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(names)
    # Of runs whose folders lie beside each other, as Lightning's.
    logs = tmp_path / "lightning_logs"
    for version in (0, 1):
        make_files(logs / f"version_{version}" / "checkpoints", "epoch=0-step=10.ckpt", "epoch=1-step=20.ckpt")
    assert places(find_series(str(logs))) == [
        f"version_{version}/epoch={epoch}-step={10 * epoch + 10} version_{version} - {10 * epoch + 10}"
        for version in (0, 1)
        for epoch in (0, 1)
    ]


def test_a_folder_with_one_checkpoint_of_training_code(tmp_path):
    make_files(tmp_path / "out", "ckpt.pt")
    [found] = find_checkpoints(str(tmp_path / "out"))
    assert (found.model, found.name, found.step, found.folder) == ("out", "main", None, tmp_path / "out")


def test_links_are_one_checkpoint(tmp_path):
    run = tmp_path / "run"
    make_checkpoint(run / "step10")
    make_checkpoint(run / "step20")
    make_checkpoint(tmp_path / "elsewhere")
    for name, target in (("latest", "step20"), ("checkpoint-10", "step10"), ("step30", "../elsewhere"), ("self", ".")):
        (run / name).symlink_to(target)
    (run / "gone").symlink_to("nowhere")
    found = find_series(str(run))
    assert [each.name for each in found.checkpoints] == ["step10", "step20", "step30"]
    assert sorted(found.left_out) == [("checkpoint-10", "a link to step10"), ("latest", "a link to step20")]
    runs = tmp_path / "runs"
    make_checkpoint(runs / "wide" / "step1")
    (runs / "best").symlink_to("wide")
    assert places(find_series(str(runs))) == ["wide/step1 wide - 1"]
    (tmp_path / "link").symlink_to("runs")
    assert places(find_series(str(tmp_path / "link"))) == ["wide/step1 wide - 1"]


def test_a_pattern_that_matches_some_names(tmp_path, caplog):
    for name in ("v1", "v2", "w3", "best"):
        make_checkpoint(tmp_path / "patterned" / name)
    found = find_series(str(tmp_path / "patterned"), step_pattern=r"v(?P<step>\d+)")
    assert [each.step for each in found.checkpoints] == [1, 2, None, None]
    [warning] = [record.message for record in caplog.records]
    assert warning.endswith("does not match 2 names of patterned: best, w3; these are left out")
    assert {name for name, _ in found.left_out} == {"best", "w3"}
    # A pattern may read the folders above, too.
    make_checkpoint(tmp_path / "sizes" / "wide" / "v7")
    make_checkpoint(tmp_path / "sizes" / "deep" / "v7")
    found = find_series(str(tmp_path / "sizes"), step_pattern=r"(?P<run>wide|deep)/v(?P<step>\d+)")
    assert {(each.run, each.step) for each in found.checkpoints} == {("deep", 7), ("wide", 7)}


def test_names_that_say_nothing(tmp_path, caplog, configure):
    for name in ("kestrel", "deeper-starling", "fp16"):
        make_checkpoint(tmp_path / "phases" / name)
    find_series(str(tmp_path / "phases"))
    [warning] = [record.message for record in caplog.records]
    assert "revisions: [{name: deeper-starling, step: 1000}, {name: kestrel, step: 2000}]" in warning
    items = [
        {"name": "deeper-starling", "step": 20, "stage": "phase2"},
        {"name": "kestrel", "step": "1k", "tokens": "2e9"},
    ]
    model = {"pretrained": str(tmp_path / "phases"), "revisions": items}
    [entry] = load_config(configure(models=[model])).models
    found = find_series(str(tmp_path / "phases"), stated=entry.stated).checkpoints
    chosen = select(found, entry.selections)
    assert [(each.name, each.stage, each.step, each.tokens) for each in chosen] == [
        ("kestrel", None, 1000, 2_000_000_000),
        ("deeper-starling", "phase2", 20, None),
    ]
    for wrong, says in (
        ({"step": 5}, "the key 'name' is missing"),
        ({"name": "a", "stp": 1}, "did you mean 'step'"),
        ({"name": "a", "step": -1}, "step: -1 is not right"),
        (1.5, "revisions: 1.5 is not right"),
    ):
        with pytest.raises(LmsatError, match=says) as error:
            load_config(configure(models=[{**model, "revisions": [wrong]}]))
        assert "\n" not in str(error.value)


def test_a_sweep_of_a_folder_of_runs(tmp_path, save, configure, capsys):
    """Runs and steps are in the table; a checkpoint of training code is a failure that ends nothing."""
    runs = tmp_path / "runs"
    for index, (run, step) in enumerate((("seed1", 3), ("seed1", 20), ("seed2", 3), ("seed2", 20))):
        (runs / run).mkdir(parents=True, exist_ok=True)
        save(runs / run / f"step{step}", index)
    make_files(runs / "seed2" / "step30", ".metadata", "__0_0.distcp")
    make_checkpoint(runs / "seed1" / "step3-merged")
    config = configure(models=[str(runs)], tasks=["lmsat_head"])
    summary = run_sweep(load_config(config))
    assert summary.measured == 4
    [(label, reason)] = summary.failed.items()
    assert label == "runs seed2/step30"
    assert reason.startswith(f"{runs}/seed2/step30 is not in transformers' format but in that of torch.distributed")
    again = run_sweep(load_config(config))
    assert (again.measured, again.done_before, list(again.failed)) == (0, 4, [label])
    out = str(tmp_path / "out")
    capsys.readouterr()
    assert main(["results", out, "--format", "json", "--metric", "stable_rank"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["model"], row["run"], row["step"], row["revision"]) for row in rows] == [
        ("runs", run, step, f"step{step}") for run in ("seed1", "seed2") for step in (3, 20)
    ]
    assert len({row["value"] for row in rows}) == 4
    assert main(["verify", out]) == 0
    assert "no problem" in capsys.readouterr().out
    assert main(["sweep", str(config), "--dry-run"]) == 0
    assert "Left out: seed1/step3-merged (a copy in another form)" in capsys.readouterr().out
    assert main(["sweep", str(config), "--only", "runs@seed2/step3", "--force"]) == 0
    assert "1 measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("step", "left_out", "selected"),
    [
        (None, [("main", "no checkpoint of the run")], ["checkpoint-500", "checkpoint-1000"]),
        (1500, [], ["checkpoint-500", "checkpoint-1000", "main"]),
        (1000, [("main", "of the step of checkpoint-1000")], ["checkpoint-500", "checkpoint-1000"]),
    ],
)
def test_the_last_model_beside_the_trainers_checkpoints(tmp_path, step, left_out, selected):
    """`all` takes it where the Trainer's state says a step of its own; its name selects it always."""
    run = make_checkpoint(tmp_path / "run", **({} if step is None else {"global_step": step}))
    for each in (500, 1000):
        make_checkpoint(run / f"checkpoint-{each}", global_step=each)
    found = find_series(str(run))
    assert [tuple(each) for each in found.left_out] == left_out
    assert [each.revision for each in select(found.checkpoints, "all")] == selected
    assert [each.folder for each in select(found.checkpoints, "main")] == [run]
