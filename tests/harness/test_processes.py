"""One process and several give the same numbers, also where there is less to do than there are processes."""

from __future__ import annotations

import json

import pytest
from evaluation import TASKS, evaluate, numbers
from places import HELPERS, ROOT
from torchrun import launch

BATCH_SIZE = 3
OF_STATES = ["lmsat_geometry", "lmsat_activations", "lmsat_attention", "lmsat_ngram_gap"]

# A downstream task of lm-eval's own kind, which deals documents out to processes: the rank has to be right.
ROLLING = """
task: rolling
dataset_path: json
dataset_kwargs: {data_files: {test: CORPUS}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}]
"""

SCRIPT = """
import json, sys
sys.path.insert(0, TESTS)
from evaluation import TASKS, evaluate

for name, arguments in json.loads(sys.argv[1]).items():
    results = evaluate("lmsat", **arguments)
    if results is not None:
        with open(f"{sys.argv[2]}/{name}.json", "x") as file:
            json.dump({key: results[key] for key in ("results", "n-samples")}, file)
            file.write("\\n")
            json.dump(results["config"]["lmsat"], file)
""".replace("TESTS", repr(str(HELPERS)))


# ``lm_eval`` with the tasks of this checkout alone: an index of all others takes seconds.
COMMAND = """
import functools, lm_eval.tasks
from lm_eval.__main__ import cli_evaluate

lm_eval.tasks.TaskManager = functools.partial(lm_eval.tasks.TaskManager, include_defaults=False)
cli_evaluate()
"""


def assert_equal(found: dict, expected: dict, rel: float = 1e-9) -> None:
    """Compare metrics to 1e-9, or less closely."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == (None if value is None else pytest.approx(value, rel=rel)), key


@pytest.fixture(scope="module")
def runs(checkpoint, documents, tmp_path_factory) -> dict[str, dict]:
    """Return the arguments of evaluations: of 13 uneven documents, of a part, of one, and with a prefix everywhere."""
    folder = tmp_path_factory.mktemp("corpora")
    model_args = {"pretrained": str(checkpoint("gpt_neox")), "dtype": "float32", "device": "cpu"}
    common = {"model_args": model_args, "batch_size": BATCH_SIZE, "max_tokens": None}
    many = [text for text in documents if text]
    assert len(many) == 13
    for name, texts in {"many": many, "one": [documents[1]]}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "tasks").mkdir()
    (folder / "tasks" / "rolling.yaml").write_text(ROLLING.replace("CORPUS", str(folder / "many.jsonl")))
    return {
        "many": {
            **common, "corpus": str(folder / "many.jsonl"),
            "tasks": [*TASKS, "rolling"], "folders": [str(folder / "tasks")],
        },
        "states": {**common, "corpus": str(folder / "many.jsonl"), "tasks": OF_STATES, "max_tokens": 900},
        "one": {**common, "corpus": str(folder / "one.jsonl"), "tasks": TASKS},
        "prefixed": {**common, "corpus": str(folder / "many.jsonl"), "tasks": TASKS, "prefix": "window"},
        # Differences of losses, and steps along a gradient: float64.
        "changed": {
            **common, "corpus": str(folder / "many.jsonl"), "model_args": {**model_args, "dtype": "float64"},
            "tasks": ["lmsat-weights", "lmsat-quantization", "lmsat-sharpness"],
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def expected(runs):
    """Return the results of this process alone."""
    return {name: evaluate("lmsat", **arguments) for name, arguments in runs.items()}


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_give_the_numbers_of_one(processes, runs, expected, documents, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch(processes, str(script), json.dumps(runs), str(tmp_path))
    for name in runs:
        # Written by one process only: the script does not overwrite a file.
        found, provenance = map(json.loads, (tmp_path / f"{name}.json").read_text().splitlines())
        assert_equal(numbers(found), numbers(expected[name]), rel=1e-6 if name == "changed" else 1e-9)
        assert provenance["processes"] == processes
        assert provenance["corpus"] == expected[name]["config"]["lmsat"]["corpus"]
    known = {task: value for (task, _), value in numbers(expected["states"]).items() if value is not None}
    assert set(known) == set(OF_STATES)
    assert numbers(expected["one"])["lmsat_loss", "bytes,none"] == len(documents[1].encode())


def test_command_on_two_processes(runs, expected, tmp_path):
    """As a user starts it: one result file, with samples, arrays and the glob."""
    arguments = runs["many"]
    arrays = tmp_path / "arrays"
    model_args = f"pretrained={arguments['model_args']['pretrained']},dtype=float32,arrays={arrays}"
    (tmp_path / "lm_eval.py").write_text(COMMAND)
    launch(
        2,
        *(str(tmp_path / "lm_eval.py"), "run", "--model", "lmsat", "--model_args", model_args, "--device", "cpu"),
        *("--tasks", "lmsat_*", "--include_path", str(ROOT / "tasks"), "--batch_size", str(BATCH_SIZE)),
        *("--metadata", f"corpus={arguments['corpus']}", "max_tokens=100000", "--log_samples"),
        *("--output_path", str(tmp_path / "results")),
    )
    [path] = (tmp_path / "results").rglob("results_*.json")
    results = json.loads(path.read_text())
    whole = numbers(expected["many"])
    wanted = {key: value for key, value in whole.items() if key[0] in TASKS}
    found = {key: value for key, value in numbers(results).items() if key[0] in TASKS}
    assert_equal(found, wanted)
    assert results["config"]["lmsat"]["processes"] == 2
    assert results["config"]["lmsat"]["corpus"]["tokens"] == whole["lmsat_loss", "tokens,none"]
    [stored] = arrays.iterdir()
    assert results["config"]["lmsat"]["arrays"] == str(stored.resolve())
    samples = {path.name.split("_2")[0] for path in (tmp_path / "results").rglob("samples_*.jsonl")}
    assert samples >= {f"samples_{task}" for task in TASKS}
