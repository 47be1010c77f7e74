"""``lmsat sweep NAME``: what names, options and KEY=VALUE amount to, and what is refused."""

from __future__ import annotations

import shlex
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from sweep_outputs import files_of

from lmsat_plugin.cli.main import main
from lmsat_plugin.cli.parser import build_parser
from lmsat_plugin.cli.sweep_arguments import read_arguments
from lmsat_plugin.files import folder_name
from lmsat_plugin.sweeps import local, processes
from lmsat_plugin.sweeps.config import SweepConfig, config_to_yaml, load_config
from lmsat_plugin.sweeps.jobs import find_jobs
from lmsat_plugin.yaml_files import SHIPPED

TASKS = ["lmsat_loss", "lmsat_anisotropy", "lmsat_head"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """Return the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checkpoint_at(path: str) -> Path:
    """Make a folder that looks like a checkpoint."""
    folder = Path(path)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    return folder


@pytest.fixture
def run() -> str:
    for step in (100, 200):
        checkpoint_at(f"runs/my-model/checkpoint-{step}")
    return "runs/my-model"


@pytest.fixture
def configuration(run) -> str:
    """Return a file with two models."""
    config = {"models": [run, {"pretrained": "org/other", "revisions": "last"}], "tasks": "piqa", "output": "there"}
    Path("sweep.yaml").write_text(yaml.safe_dump(config))
    return "sweep.yaml"


def config_of(*words: str) -> SweepConfig:
    args, rest = build_parser().parse_known_args(["sweep", *words])
    args.words += rest
    return read_arguments(args)[0]


def models_of(config: SweepConfig) -> list[tuple]:
    return [(entry.pretrained, entry.name, entry.revisions) for entry in config.models]


def refused(capsys, *words: str) -> str:
    """Return the one sentence with which a sweep is refused, before anything is written."""
    before = sorted(Path().rglob("*"))
    assert main(["sweep", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lmsat: error: ")
    assert error.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    return error


@pytest.mark.parametrize("name", ["runs/my-model", "runs/my-model/", "./runs/my-model", "runs/x/../my-model"])
def test_a_folder(run, name):
    Path("runs/x").mkdir()
    config = config_of(name)
    assert models_of(config) == [(name.rstrip("/"), None, ["log:20"])]
    assert [entry.task for entry in config.tasks] == TASKS
    assert [entry.corpus for entry in config.corpora] == ["sample"]
    assert config.output == Path("runs/my-model-results")


def test_a_folder_with_an_absolute_path_and_the_working_folder(run, place, monkeypatch):
    assert config_of(str(place / run)).output == place / "runs/my-model-results"
    monkeypatch.chdir(run)
    assert config_of(".").output == Path("../my-model-results")


@pytest.mark.parametrize("name", ["EleutherAI/pythia-160m", "pythia-160m", "EleutherAI/pythia-160m/"])
def test_a_repository(name):
    config = config_of(name)
    assert models_of(config) == [(name.rstrip("/"), None, ["log:20"])]
    assert config.output == Path("results/pythia-160m")


def test_what_stands_for_several_repositories():
    name = "EleutherAI/pythia-410m-seed{1..9}"
    assert config_of(name).output == Path("results/pythia-410m-seed")
    config = config_of(name, "--name", "pythia-410m", "--tokens-per-step", "2097152")
    assert (models_of(config), config.output) == ([(name, "pythia-410m", ["log:20"])], Path("results/pythia-410m"))
    assert config.models[0].tokens_per_step == 2097152


def test_several_models_share_an_output(run):
    checkpoint_at("runs/other/step1")
    checkpoint_at("elsewhere/my-model/step1")
    config = config_of(run, "runs/other")
    assert models_of(config) == [(run, None, ["log:20"]), ("runs/other", None, ["log:20"])]
    assert config.output == Path("runs/results")
    assert config_of(run, "org/name").output == config_of("org/name", "org/other").output == Path("results")
    # Folders of one name would be one series of the results.
    config = config_of(run, "elsewhere/my-model", "org/name")
    assert [entry.name for entry in config.models] == ["runs/my-model", "elsewhere/my-model", None]
    assert config.output == Path("results")


def test_several_models_of_one_name_are_its_runs():
    """As a shell makes them of a brace."""
    names = ["runs/m-seed1", "runs/m-seed2"]
    for name in names:
        checkpoint_at(f"{name}/step1")
        checkpoint_at(f"{name}/step2")
    config = config_of(*names, "--name", "m")
    assert models_of(config) == [(names, "m", ["log:20"])]
    Path("kept.yaml").write_text(config_to_yaml(config))
    found = [job.checkpoint for job in find_jobs(load_config(Path("kept.yaml")))]
    assert [(each.model, each.run, each.step) for each in found] == [
        ("m", f"seed{seed}", step) for seed in (1, 2) for step in (1, 2)
    ]


@pytest.mark.parametrize("inside", ["checkpoint-100", "step7/hf"])
def test_one_checkpoint_joins_the_results_of_its_run(run, inside, place, monkeypatch):
    name = f"{run}/{inside}"
    if not Path(name).exists():
        checkpoint_at(name)
    assert config_of(name).output == config_of(name, f"{run}/checkpoint-200").output == Path("runs/my-model-results")
    monkeypatch.chdir(name)
    assert config_of(".").output.resolve() == place / "runs/my-model-results"


def test_results_never_go_into_a_checkpoint(run, monkeypatch):
    for name in (run, "runs"):
        (Path(name) / "config.json").write_text("{}")
        (Path(name) / "model.safetensors").touch()
    assert config_of(run).output == Path("my-model-results")
    assert config_of(f"{run}/checkpoint-100").output == Path("my-model-results")
    monkeypatch.chdir(f"{run}/checkpoint-100")
    assert config_of("org/name").output == Path("../../../results/name")


def test_a_stray_configuration_makes_no_checkpoint(run):
    Path("runs/config.json").write_text("{}")
    assert config_of(run).output == Path("runs/my-model-results")


def test_options_and_settings_mix_with_names_in_any_order(run):
    config = config_of("max_tokens=500", run, "--tasks", "lmsat_loss,arc_easy", "piqa", "limit=7", "--force", "org/x")
    assert [entry.pretrained for entry in config.models] == [run, "org/x"]
    assert [entry.task for entry in config.tasks] == ["lmsat_loss", "arc_easy", "piqa"]
    assert (config.max_tokens, config.limit) == (500, 7)

    options = ["--corpus", "pile", "--corpus", "c4", "--output", "else where", "--revisions", "stage:1 log:5", "last"]
    config = config_of(run, *options, "--name", "mine", "batch_size=4")
    assert [entry.corpus for entry in config.corpora] == ["pile", "c4"]
    assert (config.output, config.batch_size) == (Path("else where"), 4)
    assert models_of(config) == [(run, "mine", ["stage:1 log:5", "last"])]
    assert config_of(run, "corpus=pile").corpora == config_of(run, "--corpus", "pile").corpora


def test_watching_takes_all_checkpoints_and_waits_for_the_first(run):
    Path("new").mkdir()
    assert models_of(config_of(run, "--watch")) == [(run, None, ["all"])]
    assert models_of(config_of("new", "--watch")) == [("new", None, ["all"])]


def test_options_replace_keys_of_a_configuration(configuration, run):
    assert models_of(config_of(configuration)) == [(run, None, ["all"]), ("org/other", None, ["last"])]
    config = config_of(configuration, "--tasks", "lmsat_loss", "max_tokens=9", "--output", "out", "--corpus", "c4")
    assert [entry.task for entry in config.tasks] == ["lmsat_loss"]
    assert (config.output, config.max_tokens, config.corpora[0].corpus) == (Path("out"), 9, "c4")
    config = config_of(configuration, "--revisions", "first", "--step-pattern", "x(?P<step>.*)")
    assert [entry.revisions for entry in config.models] == [["first"], ["first"]]
    assert {entry.step_pattern for entry in config.models} == {"x(?P<step>.*)"}


def test_single_settings_join_those_of_a_configuration(configuration):
    words = [
        str(configuration),
        "metadata={similarity_tokens: 100}",
        "metadata.reference=last",
        "metadata.noise_draws=2",
    ]
    config = config_of(*words)
    assert config.metadata == {"similarity_tokens": 100, "reference": "last", "noise_draws": 2}
    assert config_of("runs/my-model", "--tasks", "lmsat-similarity", "metadata.reference=last").metadata == {
        "reference": "last"
    }


@pytest.mark.parametrize("name", ["max_tokens=5", "lr=0.1 прогон", "sweep.yaml", "[a] {b}"])
def test_a_path_that_exists_wins(name):
    checkpoint_at(f"{name}/step1")
    assert models_of(config_of(name)) == [(name, None, ["log:20"])]
    assert config_of(name).output == Path(f"{name}-results")


def test_a_file_is_a_configuration_whatever_its_name(configuration):
    for name in ("sweep.JSON", "max_tokens=5.yml", "sweep"):
        shutil.copy(configuration, name)
        assert config_of(name) == config_of(configuration)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "nothing to sweep: name a folder"),
        (["max_tokens=5"], "nothing to sweep: name a folder"),
        (["--tasks", "lmsat_loss", "runs/my-model"], "take all words after them, up to runs/my-model"),
        ([""], "an empty word"),
        (["sweep.yaml", "runs/my-model"], "give it or runs/my-model, not both"),
        (["sweep.yaml", "sweep.yaml"], "give it or sweep.yaml, not both"),
        (["swep.yaml"], "did you mean sweep.yaml?"),
        (["pythia.yaml"], "did you mean configs/pythia.yaml?"),
        (["configs/pithia.yaml"], "did you mean configs/pythia.yaml?"),
        (["./runs/my-modle"], "no such folder; did you mean runs/my-model?"),
        (["/nowhere/at/all"], "no such folder; correct the path"),
        (["runs/mymodel!"], "no name of the Hub: correct it (did you mean the folder runs/my-model?)"),
        (["runs/lr=0.1"], "no name of the Hub"),
        (["lr=0.1"], "lr=0.1 is no folder here, and 'lr' is no key"),
        (["runs/my-model", "bach_size=3"], "unknown setting 'bach_size': did you mean batch_size?"),
        (["runs/my-model", "max_tokens=many"], "max_tokens=many is not right"),
        (["runs/my-model", "models=[x]"], "models= replaces"),
        (["runs/my-model", "corpus=a", "--corpus", "b"], "--corpus and corpus= are both given"),
        (["sweep.yaml", "output=a", "--output", "b"], "--output and output= are both given"),
        (["runs/my-model", "--tasks", ","], "--tasks names no task"),
        (["empty"], "has a config.json"),
        (["notes.gguf"], "is a file: give the folder"),
        (["runs/my-model", "--save", "sweep.yaml"], "--save sweep.yaml is there and is not this configuration"),
        (["runs/my-model", "--save", "runs"], "--save runs is there"),
        (["~no-such-user/run"], "home folder of nobody"),
    ],
)
def test_what_is_refused_in_one_sentence(configuration, capsys, words, says):
    Path("empty").mkdir()
    Path("notes.gguf").touch()
    assert says in refused(capsys, *words)


def test_a_name_that_the_hub_does_not_have_may_be_a_folders(run, capsys):
    """Without a network, as these tests are."""
    assert main(["sweep", "runs/my-modle"]) == 2
    assert "(did you mean the folder runs/my-model?)" in capsys.readouterr().err


def test_the_configuration_is_shown_and_kept(run, capsys):
    words = ["sweep", run, "max_tokens=300", "--revisions", "last", "--dry-run", "--save", "kept/it.yaml"]
    assert main(words) == 0
    shown = capsys.readouterr().out.partition("\n\n")[0]
    assert yaml.safe_load(shown) == {
        "models": [{"pretrained": run, "revisions": "last"}],
        "tasks": TASKS,
        "output": "runs/my-model-results",
        "corpus": "sample",
        "max_tokens": 300,
    }
    kept = Path("kept/it.yaml")
    assert load_config(kept) == config_of(*words[1:5]) == config_of("kept/it.yaml")
    # The same once more leaves the file alone, with what its owner wrote into it.
    kept.write_text(f"# mine\n{kept.read_text()}")
    assert main(words) == 0
    assert kept.read_text().startswith("# mine")
    assert not Path("runs/my-model-results").exists()


@pytest.mark.parametrize("path", sorted(p for p in SHIPPED.glob("*.yaml") if "lmsat sweep" in p.read_text()), ids=str)
def test_a_configuration_survives_being_written(path):
    config = load_config(path)
    Path("again.yaml").write_text(config_to_yaml(config), "utf-8")
    assert load_config(Path("again.yaml")) == config


def test_values_of_all_kinds_survive_being_written(run):
    values = "{a: 1e-5, b: 1.0e-05, c: 2024-01-01, d: 'null', e: [no, 'no'], f: '1_0', g: \"x\\ty\", h: ü 你 🙂}"
    settings = [f"metadata={values}", "tasks=[x, {task: c}, {task: d, num_fewshot: 0}]", "output='~/#x: y'", "keep=all"]
    config = config_of(run, "org/name", *settings, "corpora=[{corpus: 'a: b'}, {corpus: '- c #', seed: 1}]")
    Path("again.yaml").write_text(config_to_yaml(config), "utf-8")
    again = load_config(Path("again.yaml"))
    assert again == config
    assert again.metadata["c"].year == 2024


@pytest.fixture
def tiny(checkpoint) -> str:
    """Return a folder with two checkpoints that can be measured."""
    name = "e v=1/прогон два"
    for step in (100, 200):
        shutil.copytree(checkpoint("gpt_neox"), Path(name) / f"checkpoint-{step}")
    return name


def test_a_folder_is_swept_and_gone_on_with(tiny, capsys):
    """The results of one checkpoint are among those of its run, which has no other checkpoints than before."""
    words = ["max_tokens=200", "device=cpu", "--tasks", "lmsat_loss"]
    assert main(["sweep", f"{tiny}/checkpoint-200", *words]) == main(["sweep", f"{tiny}/", *words]) == 0
    shown = capsys.readouterr().out
    assert "1 measured, 0 done before. Results: e v=1/прогон два-results" in shown
    assert "1 measured, 1 done before. Results: e v=1/прогон два-results" in shown
    found = files_of(Path(f"{tiny}-results"))
    assert {document["config"]["lmsat"]["checkpoint"]["step"] for document in found.values()} == {100, 200}
    assert {Path(path).parts[:-1] for path in found} == {
        (folder_name("прогон два"), f"checkpoint-{n}") for n in (100, 200)
    }


def same_plan(arguments: list[str], config: SweepConfig) -> bool:
    """Return whether a worker's arguments amount to a configuration, whatever became of the names."""
    shutil.rmtree("e v=1", ignore_errors=True)
    args = build_parser().parse_args(arguments)
    mine, is_of_names = read_arguments(args)
    kept = config.model_copy(update={"executor": "local"})
    return not is_of_names and mine == kept and bool(args.worker) and len(args.run_name) == 32 and args.retry_failed


def test_workers_have_the_same_plan(tiny, monkeypatch):
    started: list[list[str]] = []

    class Worker:
        def __init__(self, number: int, count: int, arguments: list[str], environment: dict) -> None:
            self.pid, self.number = 0, number
            started.append([*arguments, f"--worker={number}/{count}"])

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(processes, "_Worker", Worker)
    words = [
        tiny,
        "--output",
        "out",
        "--executor",
        "processes",
        "--workers",
        "2",
        "--name",
        "x",
        "--tasks",
        "lmsat_head",
    ]
    assert main(["sweep", *words, "--retry-failed"]) == 1
    assert len(started) == 2
    config = config_of(*words)
    assert all(same_plan(arguments, config) for arguments in started)


def test_jobs_of_slurm_have_the_same_plan(tiny, monkeypatch):
    submitit = pytest.importorskip("submitit")
    submitted = []

    class Executor:
        def __init__(self, **_) -> None:
            self.batch = nullcontext

        def update_parameters(self, **_) -> None:
            return

        def submit(self, job):
            submitted.append(list(job.arguments))
            return type("Submitted", (), {"job_id": "1_0"})

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    words = [tiny, "--output", "out", "--executor", "slurm", "--tasks", "lmsat_head"]
    assert main(["sweep", *words, "--retry-failed"]) == 0
    assert [arguments[arguments.index("--only") + 1] for arguments in submitted] == [
        "прогон два@checkpoint-100",
        "прогон два@checkpoint-200",
    ]
    config = config_of(*words)
    assert all(same_plan(arguments, config) for arguments in submitted)


def test_after_ctrl_c_the_command_to_go_on_with_is_the_same(tiny, monkeypatch, capsys):
    words = ["sweep", f"{tiny}/", "max_tokens=200", "--tasks", "lmsat_loss", "--save", "kept two.yaml"]

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "run_sweep", interrupted)
    monkeypatch.setattr(sys, "argv", ["lmsat", *words])
    assert main(words) == 130
    said = capsys.readouterr().err
    assert "is kept in e v=1/прогон два-results" in said
    command, *again = shlex.split(said.partition("Go on with: ")[2])
    assert (command, config_of(*again[1:])) == ("lmsat", config_of(*words[1:]))
    assert main(again) == 130
