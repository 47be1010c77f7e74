"""Records of Every Eval Ever, against the project's own schema where its package is there."""

from __future__ import annotations

import importlib.util
import json
import uuid
from pathlib import Path

import pytest
from places import PYTHIA_EVALS
from result_trees import Made, write_result, write_tree

from lmsat_plugin.cli.main import main

EVALS = PYTHIA_EVALS


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    write_tree(root, [Made("org/m", 10**6), Made("../../sly", 10**6)], steps=(1, 100))
    return root


def exported(root, folder) -> dict[Path, dict]:
    assert main(["export", str(root), "--output", str(folder)]) == 0
    return {path: json.loads(path.read_text("utf-8")) for path in sorted(folder.rglob("*.json"))}


def test_a_record_for_each_result_file(tree, tmp_path):
    found = exported(tree, tmp_path / "out")
    assert len(found) == len(list(tree.rglob("results_*.json"))) == 4
    places = {path.relative_to(tmp_path / "out").parent.as_posix() for path in found}
    assert "data/lmsat/org/m" in places
    for path in found:
        assert len(path.relative_to(tmp_path / "out").parts) == 5
        assert uuid.UUID(path.stem).version == 4
    assert len({record["evaluation_id"] for record in found.values()}) == 4
    # Nothing but what was asked for is written, and the same again is the same files.
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert exported(tree, tmp_path / "out").keys() == found.keys()


def test_values_are_those_of_the_file(tree, tmp_path):
    for path, record in exported(tree, tmp_path).items():
        source = json.loads((tree / record["source_metadata"]["additional_details"]["file"]).read_text("utf-8"))
        results = {one["evaluation_result_id"]: one for one in record["evaluation_results"]}
        wanted = {
            f"{task}:{key.removesuffix(',none')}": value
            for task, entry in source["results"].items()
            for key, value in entry.items()
            if key.endswith(",none") and "_stderr" not in key
        }
        scores = {name: one["score_details"]["score"] for name, one in results.items()}
        assert scores == pytest.approx(wanted), path
        stderr = source["results"]["lmsat_loss"]["loss_stderr,none"]
        assert results["lmsat_loss:loss"]["score_details"]["uncertainty"]["standard_error"] == {"value": stderr}
        assert results["lmsat_loss:loss"]["metric_config"]["lower_is_better"]
        assert not results["piqa:acc"]["metric_config"]["lower_is_better"]
        assert results["piqa:acc"]["metric_config"]["metric_id"] == "accuracy"
        assert record["eval_library"] == {"name": "lm_eval", "version": "0.4.13"}


@pytest.fixture(scope="module")
def records(tree, tmp_path_factory):
    """Return records of both kinds of metrics that there are, bounded and not."""
    folder = tmp_path_factory.mktemp("records")
    write_result(folder / "odd", "m", 1, {"crows_pairs": {"pct_stereotype": 0.6}})
    found = {**exported(tree, folder / "synthetic"), **exported(folder / "odd", folder / "more")}
    return {**found, **exported(EVALS, folder / "published")} if EVALS.is_dir() else found


def test_records_are_valid_by_the_published_schema(records):
    jsonschema = pytest.importorskip("jsonschema")
    spec = importlib.util.find_spec("every_eval_ever")
    if spec is None:
        pytest.skip("needs `pip install --no-deps every-eval-ever`")
    path = Path(spec.submodule_search_locations[0]) / "schemas" / "eval.schema.json"
    schema = json.loads(path.read_text("utf-8"))
    assert schema["version"] == "0.3.0"
    validator = jsonschema.Draft7Validator(schema)
    for path, record in records.items():
        assert not [error.message for error in validator.iter_errors(record)], path
        assert record["schema_version"] == "0.3.0"
    assert not validator.is_valid({**record, "evaluation_results": [{}]})


def test_records_are_valid_by_the_project_s_own_models(records):
    """They ask for more than the schema: scores of a continuous metric need bounds that are numbers."""
    types = pytest.importorskip("every_eval_ever.eval_types")
    for record in records.values():
        types.EvaluationLog.model_validate(record)


def test_what_is_not_known_of_a_metric_is_marked(records):
    metrics = {
        one["evaluation_result_id"]: one["metric_config"]
        for record in records.values()
        for one in record["evaluation_results"]
    }
    head, odd = metrics["lmsat_head:singular_entropy"], metrics["crows_pairs:pct_stereotype"]
    assert head["additional_details"] == {"polarity": "not_applicable"}
    assert (head["min_score"], head["max_score"]) == (0, "Infinity")
    assert odd["additional_details"] == {"bounds_status": "unknown"}
    assert "score_type" not in odd


def test_what_json_has_no_number_for_is_left_out(tmp_path):
    write_result(tmp_path / "in", "m", 1, {"lmsat_loss": {"loss": 800.0, "perplexity": float("inf")}})
    (record,) = exported(tmp_path / "in", tmp_path / "out").values()
    assert [one["evaluation_result_id"] for one in record["evaluation_results"]] == ["lmsat_loss:loss"]
    assert "Infinity" not in json.dumps(record["evaluation_results"][0]["score_details"])


def test_bad_input(tree, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("", "utf-8")
    (tmp_path / "empty").mkdir()
    write_result(tmp_path / "infinite", "m", 1, {"lmsat_loss": {"loss": float("inf")}})
    cases = [
        ((tmp_path / "empty", tmp_path / "out"), "holds no lm-eval results"),
        ((tree, file / "sub"), f"cannot write to {file / 'sub'}"),
        ((tmp_path / "infinite", tmp_path / "out"), "holds no finite value to export"),
    ]
    for (source, folder), said in cases:
        assert main(["export", str(source), "--output", str(folder)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
