"""Log-likelihoods of continuations are those of ``hf``, whatever the strings, and what a result says of them."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from evaluation import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from quiz import write_quiz

from lmsat_plugin.errors import DivergedError, LmsatError
from lmsat_plugin.harness import loglikelihoods
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.scoring.continuations import ScoringPlan

PAIRS = [
    ("The sky is", " blue"),
    ("The sky is", " a kind of fish"),
    ("The sky is ", "a kind of fish, behind a space of the prompt"),
    ("The sky is\n\n", "blue"),
    ("The sk", "y, across the boundary of a token"),
    ("", "no context"),
    ("", "<|endoftext|> no context, and the prefix token"),
    ("<|endoftext|>The sky is", " blue"),
    ("long " * 100, "context, cut on the left"),
    ("The sky is", " blue"),
    *((f"{'Two and two are four. ' * 2}How much is {number}?", f" {answer}") for number in "123" for answer in "5678"),
]


def instances(pairs):
    return [Instance("loglikelihood", {}, pair, index, ("words", index, 1)) for index, pair in enumerate(pairs)]


@pytest.mark.parametrize("add_bos_token", [None, True])
@pytest.mark.parametrize("name", ["gpt_neox", "llama"])
def test_numbers_are_those_of_hf(checkpoint, name, add_bos_token):
    args = {"pretrained": str(checkpoint(name)), "dtype": "float32", "device": "cpu", "add_bos_token": add_bos_token}
    ours, whole, theirs = (
        SaturationLM(**args, batch_size=2),
        SaturationLM(**args, batch_size=2, shared_prefixes=False),
        HFLM(**args, batch_size=2),
    )
    expected = theirs.loglikelihood(instances(PAIRS))
    for lm in (ours, whole):
        found = lm.loglikelihood(instances(PAIRS))
        assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], rel=1e-5)
        assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert ours.lmsat_downstream["shared_prefixes"]
    assert not whole.lmsat_downstream["shared_prefixes"]
    assert ours.lmsat_downstream["tokens_computed"] < whole.lmsat_downstream["tokens_computed"]
    assert ours.lmsat_downstream["tokens_asked"] == whole.lmsat_downstream["tokens_asked"]


def own_greedy(lm, documents):
    """Return three options for each question, the first of which is the model's own most probable token."""
    random_, pairs = random.Random(0), []
    while len(pairs) < 3 * documents:
        context = f"{'Two and two are four. ' * 2}How much is {random_.randrange(10**6)}?"
        tokens = lm.tok_encode(context)
        with torch.no_grad():
            token = int(lm.model(torch.tensor([tokens])).logits[0, -1].argmax())
        own = lm.tokenizer.decode([token])
        # Where it comes back as the same token from the text.
        if own and lm._encode_pair(context, own)[1] == [token]:
            pairs += [(context, own), (context, f" {random_.randrange(1000)}"), (context, " a fish")]
    return pairs


@pytest.mark.parametrize("name", ["gpt_neox", "llama"])
def test_the_orders_of_options_and_the_greedy_hits_are_those_of_hf(checkpoint, name):
    args = {"pretrained": str(checkpoint(name)), "dtype": "float32", "device": "cpu", "batch_size": 8}
    ours, theirs = SaturationLM(**args), HFLM(**args)
    requests = instances(own_greedy(theirs, 100))
    found, expected = ours.loglikelihood(requests), theirs.loglikelihood(requests, disable_tqdm=True)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert 100 <= sum(greedy for _, greedy in found) < 200

    def orders(answers):
        return [sorted(range(3), key=lambda at: answers[first + at][0]) for first in range(0, len(answers), 3)]

    assert orders(found) == orders(expected)


def test_what_is_cut_is_counted_and_said_once(lm, caplog):
    lm.loglikelihood(instances([*PAIRS, ("longer " * 100, "still")]))
    assert lm.lmsat_downstream["truncated"] == 2
    assert caplog.text.count("2 of 23 requests are longer than the window of 64 tokens") == 1


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        (("The sky is", ""), r"the continuation '' \(task words, document 0\) has no tokens of its own: correct"),
        (("", ""), r"the continuation '' \(task words, document 0\) has no tokens of its own: correct"),
        (
            ("Long", " and longer" * 100),
            r"\(task words, document 0\) has \d+ tokens, and the window 64: set max_length",
        ),
    ],
)
def test_what_hf_fails_on_is_one_sentence(lm, pair, says):
    with pytest.raises(LmsatError, match=says):
        lm.loglikelihood(instances([pair]))


@pytest.mark.parametrize("kind", ["loglikelihood", "loglikelihood_rolling"])
def test_nan_is_said_of_the_first_document_that_has_it(lm, kind):
    [token] = lm.tok_encode("!")
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[token] = torch.nan
    asked = [("So", " blue"), ("The sky is!", " red"), ("!", " red")]
    if kind == "loglikelihood_rolling":
        asked = [("So it is blue",), ("The sky! And red",), ("! red",)]
    requests = [Instance(kind, {}, pair, index, ("words", index, 1)) for index, pair in enumerate(asked)]
    says = r"^diverged: the log-likelihood of '.* red' \(task words, document 1\) is nan: the weight \S+ is not finite"
    with pytest.raises(DivergedError, match=says):
        getattr(lm, kind)(requests)


def test_each_answer_is_cached(lm, tmp_path):
    asked = instances(PAIRS)
    with_cache = CachingLM(lm, str(tmp_path / "cache.db"))
    first = with_cache.loglikelihood(asked)
    lm.loglikelihood = None
    assert with_cache.loglikelihood(asked) == first


def test_checkpoints_of_a_series_are_planned_once(lm, monkeypatch):
    made = []
    plan = ScoringPlan.of
    monkeypatch.setattr(loglikelihoods, "ScoringPlan", SimpleNamespace(of=lambda *args: made.append(1) or plan(*args)))
    lm.lmsat_cache = {}
    answers = [lm.loglikelihood(instances(PAIRS)) for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(made) == 1


def test_a_task_has_the_numbers_and_the_records_of_hf(model_args, tmp_path):
    manager = TaskManager(include_defaults=False, include_path=str(write_quiz(tmp_path / "quiz")))
    tasks = {"tasks": ["quiz"], "task_manager": manager}
    ours, theirs = (
        simple_evaluate(model=kind, model_args=model_args, log_samples=True, bootstrap_iters=0, **tasks)
        for kind in ("lmsat", "hf")
    )
    assert ours["results"]["quiz"] == pytest.approx(theirs["results"]["quiz"])
    for one, other in zip(ours["samples"]["quiz"], theirs["samples"]["quiz"], strict=True):
        assert one.keys() == other.keys()
        assert one["doc_hash"] == other["doc_hash"]
        assert one["resps"] == [[(value, greedy)] for value, greedy in one["filtered_resps"]]
        for (value, greedy), (expected, greedy_there) in zip(
            one["filtered_resps"], other["filtered_resps"], strict=True
        ):
            assert (value, greedy) == (pytest.approx(expected, rel=1e-5), greedy_there)
    record = ours["config"]["lmsat"]["downstream"]
    assert record["shared_prefixes"]
    assert record["tokens_computed"] < record["tokens_asked"] / 2
