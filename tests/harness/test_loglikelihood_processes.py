"""Several processes answer their requests for log-likelihoods by one plan: the numbers of one, and errors on all."""

from __future__ import annotations

import json

import pytest
from lm_eval.api.instance import Instance
from torchrun import launch

from lmsat_plugin.harness.model import SaturationLM

HEADER = "Two and two are four. Three and three are six. "
PAIRS = [
    ("The sky is", " blue"),
    ("long " * 100, "context, cut on the left"),
    *((f"{HEADER}How much is {number}?", f" {answer}") for number in "12345" for answer in ("5", "67", "a fish")),
]
MODELS = {
    ("gpt_neox", "float64"): 1e-9,
    ("gpt_neox", "float32"): 1e-6,
    ("llama", "float64"): 1e-9,
    ("llama", "float32"): 1e-6,
    # Each request is computed whole.
    ("mamba", "float32"): 1e-6,
}

SCRIPT = """
import json, os, sys
import torch
from lm_eval.api.instance import Instance
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.scoring.scorer import Scorer

rank, size, pairs = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), json.loads(sys.argv[2])
requests = [Instance("loglikelihood", {}, tuple(pair), at, ("words", at, 1)) for at, pair in enumerate(pairs)]
found = {}

def sentence(lm, requests):
    try:
        lm.loglikelihood(requests)
    except Exception as error:
        return type(error).__name__, str(error)

for name, arguments in json.loads(sys.argv[1]).items():
    lm = SaturationLM(**arguments, batch_size=2)
    lm.lmsat_cache = {}
    own = requests[rank::size]
    # As lm-eval makes them equally many.
    padded = own + own[-1:] * (len(requests[::size]) - len(own))
    first = lm.loglikelihood(padded)
    record = lm.lmsat_downstream
    # Requests of the first process that it had before, beside others that it had not.
    others = lm.loglikelihood(own if rank == 0 else own[:1] * 3)
    again = lm.loglikelihood(own)
    alone = lm.loglikelihood(requests if rank == size - 1 else [])
    found[name] = {"numbers": [request.doc_id for request in padded], "answers": first, "record": record}
    found[name]["same"] = [first[: len(own)] == again, len(set(map(tuple, others))) == (len(own) if rank == 0 else 1)]
    found[name]["alone"] = alone
wrong = Instance("loglikelihood", {}, ("The sky is", ""), 99, ("words", 99, 1))
found["no tokens"] = sentence(lm, [wrong] if rank == size - 1 else requests)
run = Scorer.run
if rank == 0:
    def fail(*arguments):
        raise ValueError("no such thing here")
    Scorer.run = fail
found["raises"] = sentence(lm, requests)
Scorer.run = run
[token] = lm.tok_encode("!")
with torch.no_grad():
    lm.model.get_input_embeddings().weight[token] = torch.nan
wrong = Instance("loglikelihood", {}, ("!", " blue"), 7, ("words", 7, 1))
found["nan"] = sentence(lm, [wrong] if rank == 0 else [])
with open(f"{sys.argv[3]}/{rank}.json", "x") as file:
    json.dump(found, file)
"""


@pytest.fixture(scope="module")
def arguments(checkpoint):
    return {
        f"{name} {dtype}": {"pretrained": str(checkpoint(name)), "dtype": dtype, "device": "cpu"}
        for name, dtype in MODELS
    }


@pytest.fixture(scope="module")
def expected(arguments):
    """Return the answers of this process alone, and what is recorded of them."""
    asked = [Instance("loglikelihood", {}, pair, at, ("words", at, 1)) for at, pair in enumerate(PAIRS)]
    found = {}
    for name, of_model in arguments.items():
        lm = SaturationLM(**of_model, batch_size=2)
        found[name] = lm.loglikelihood(asked), lm.lmsat_downstream
    return found


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_one_plan(processes, arguments, expected, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch(processes, str(script), json.dumps(arguments), json.dumps(PAIRS), str(tmp_path))
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(processes)]
    for (architecture, dtype), tolerance in MODELS.items():
        name = f"{architecture} {dtype}"
        answers, record = expected[name]
        for found in (rank[name] for rank in ranks):
            there = [answers[number] for number in found["numbers"]]
            assert [value for value, _ in found["answers"]] == pytest.approx([each[0] for each in there], rel=tolerance)
            assert [greedy for _, greedy in found["answers"]] == [each[1] for each in there]
            assert found["same"] == [True, True]
            assert {**found["record"], "tokens_computed": 0} == {**record, "tokens_computed": 0}
            # A process begins within what another computes, at most.
            again = found["record"]["tokens_computed"] - record["tokens_computed"]
            assert 0 <= again <= (processes - 1) * 64
            assert found["record"]["shared_prefixes"] == (architecture != "mamba")
        assert [rank[name]["alone"] == [] for rank in ranks] == [True] * (processes - 1) + [False]
        alone = [value for value, _ in ranks[-1][name]["alone"]]
        assert alone == pytest.approx([value for value, _ in answers], rel=tolerance)
    for rank in ranks:
        kind, sentence = rank["no tokens"]
        assert kind == "LmsatError"
        assert sentence.startswith("the continuation '' (task words, document 99) has no tokens of its own")
        assert rank["raises"] == [("LmsatError", "ValueError")[rank is ranks[0]], "no such thing here"]
        kind, sentence = rank["nan"]
        assert kind == "DivergedError"
        assert "the log-likelihood of ' blue' (task words, document 7) is nan" in sentence
