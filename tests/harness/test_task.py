"""The tasks inside lm-eval: lm-eval's own result layout, and what is wrong in a sentence."""

from __future__ import annotations

import json
import math

import pytest
from evaluation import TASKS, evaluate, numbers, write_probe_task
from lm_eval.utils import handle_non_serializable
from tiny_models import VOCAB, WINDOW

from lmsat_plugin.errors import LmsatError


def test_results_have_the_layout_of_lm_eval(lm, corpus_file, documents):
    results = evaluate(lm, corpus=str(corpus_file), max_tokens=None)
    found = numbers(results)
    expected = {
        "lmsat_loss": [
            "loss",
            "perplexity",
            "bits_per_byte",
            "unigram_loss",
            "unigram_normalised_perplexity",
            "tokens",
            "bytes",
        ],
        "lmsat_anisotropy": ["anisotropy_last", "anisotropy_mean", "anisotropy_max", "effective_rank_last"],
        "lmsat_head": [
            *("singular_entropy", "singular_entropy_linear", "effective_rank", "stable_rank"),
            *("condition_number", "top_singular_ratio"),
        ],
    }
    for task, names in expected.items():
        for name in names:
            assert math.isfinite(found[task, f"{name},none"])
    error = found["lmsat_loss", "loss_stderr,none"]
    assert isinstance(error, float)
    assert 0 < error < found["lmsat_loss", "loss,none"]
    assert found["lmsat_loss", "bytes,none"] == len("".join(documents).encode())
    assert results["higher_is_better"]["lmsat_loss"]["loss"] is False
    assert results["n-shot"] == dict.fromkeys(TASKS, 0)
    assert results["n-samples"]["lmsat_loss"]["original"] == len(documents)
    assert set(results["versions"]) == set(TASKS)
    found = results["config"]["lmsat"]
    assert found["corpus"]["tokens"] == results["results"]["lmsat_loss"]["tokens,none"]
    assert found["corpus"]["corpus"] == str(corpus_file)
    assert found["corpus"]["documents_empty"] == documents.count("")
    assert found["corpus"]["window"] == WINDOW
    assert found["vocab_rows"] == VOCAB
    assert found["dtype"] == "float32"
    assert found["tied_head"] is False
    assert set(found["probes"]) == {"loss", "anisotropy", "head"}
    # What `--output_path` writes.
    text = json.dumps(results, default=handle_non_serializable)
    assert json.loads(text)["config"]["lmsat"] == found


def test_evaluating_twice_gives_the_same(lm, corpus_file):
    first, second = (evaluate(lm, corpus=str(corpus_file)) for _ in range(2))
    assert numbers(first) == numbers(second)
    assert first["config"]["lmsat"] == second["config"]["lmsat"]


@pytest.mark.parametrize("task", TASKS)
def test_another_backend_is_refused_in_one_sentence(task, corpus_file):
    with pytest.raises(LmsatError, match=rf"^the model type DummyLM .*{task} needs: run with --model lmsat$"):
        evaluate("dummy", [task], corpus=str(corpus_file))


@pytest.mark.parametrize("model", ["lmsat", "hf"])
@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("max_token", "unknown setting 'max_token': did you mean max_tokens?"),
        ("corpsu", "unknown setting 'corpsu': did you mean corpus?"),
    ],
)
def test_misspelt_metadata_is_named(model, key, message, model_args):
    with pytest.raises(LmsatError) as caught:
        evaluate(model, ["lmsat_head"], model_args=model_args, **{key: 5})
    assert str(caught.value) == message


def test_metadata_that_nobody_knows_is_named(model_args):
    with pytest.raises(LmsatError, match=r"unknown setting 'temperature': known are .*corpus.*max_tokens"):
        evaluate("lmsat", ["lmsat_head"], model_args=model_args, temperature=1)


def test_unknown_probe_in_a_task(lm, tmp_path):
    folder = write_probe_task(tmp_path / "tasks", "mine", "probe: lsos\n")
    with pytest.raises(LmsatError, match=r"no probe is named 'lsos' \(known: loss, anisotropy, head"):
        evaluate(lm, ["mine"], [folder])


def test_task_without_a_probe(lm, tmp_path):
    with pytest.raises(LmsatError, match="the task mine names no probe: add `probe: NAME`"):
        evaluate(lm, ["mine"], [write_probe_task(tmp_path / "tasks", "mine", "")])


def test_limit_counts_documents(lm, tmp_path):
    texts = [f"document number {index} {'!' * index}" for index in range(20)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    for limit, documents in ((3, 3), (0.25, 5), (100, 20)):
        results = evaluate(lm, corpus=str(tmp_path / "corpus.jsonl"), limit=limit)
        corpus = results["config"]["lmsat"]["corpus"]
        assert corpus["documents"] == documents
        whole = numbers(results)["lmsat_loss", "bytes,none"]
        assert 10 * documents < whole < 40 * documents
