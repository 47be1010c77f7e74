"""``--model lmsat``: the numbers of ``hf``, and those of Python."""

from __future__ import annotations

import math

import pytest
import torch
from evaluation import evaluate, numbers
from lm_eval.api.instance import Instance

from lmsat_plugin import measure
from lmsat_plugin.errors import DivergedError
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.model.restricted_head import truncate_head


def test_numbers_of_hf_and_of_python_are_the_same(model_args, corpus_file):
    metadata = {"corpus": str(corpus_file), "max_tokens": 1500, "seed": 3}
    results = evaluate("lmsat", model_args=model_args, **metadata)
    hf = evaluate("hf", model_args=model_args, **metadata)
    assert numbers(hf) == pytest.approx(numbers(results), rel=1e-12)
    # Of ``hf`` nobody knows which type the files have.
    assert (results["config"]["lmsat"].pop("stored_dtype"), hf["config"]["lmsat"].pop("stored_dtype")) == (
        "float32",
        None,
    )
    assert hf["config"]["lmsat"] == results["config"]["lmsat"]
    outcome = measure(model_args["pretrained"], dtype="float32", device="cpu", **metadata)
    # Other batches: rounding in float32.
    for (task, key), value in numbers(results).items():
        name = f"{task}/{key.removesuffix(',none')}"
        assert outcome.metrics[name] == pytest.approx(value, rel=1e-5)
    assert outcome.provenance["corpus"] == results["config"]["lmsat"]["corpus"]


def test_measure_of_a_loaded_model(model_args, lm, documents, corpus_file):
    lm.model.train()
    outcome = measure(lm.model, corpus=documents, tokenizer=lm.tokenizer, batch_size=2, device="cpu")
    assert lm.model.training, "the mode is given back"
    lm.model.eval()
    for (task, key), value in numbers(evaluate(lm, corpus=str(corpus_file))).items():
        name = f"{task}/{key.removesuffix(',none')}"
        assert outcome.metrics[name] == pytest.approx(value, rel=1e-12)


def test_no_answer_is_made_of_nan(model_args):
    """lm-eval's own would count the first choice, and score whatever greedy decoding makes of NaN."""
    broken = SaturationLM(**model_args, batch_size=2)
    with torch.no_grad():
        broken.model.get_input_embeddings().weight.fill_(math.nan)

    def ask(kind, *arguments):
        request = Instance(request_type=kind, doc={}, arguments=arguments, idx=0)
        with pytest.raises(DivergedError, match=r"^diverged: .*: the weight \S+embed_in.weight is not finite; leave"):
            getattr(broken, kind)([request], disable_tqdm=True)

    ask("loglikelihood", "The sky is", " blue")
    ask("loglikelihood_rolling", "The sky is blue")
    ask("generate_until", "The sky is", {"max_gen_toks": 2, "until": ["."]})
    with pytest.raises(DivergedError, match=r"the LM head's weight is not finite"):
        truncate_head(SaturationLM(**model_args).model.apply(_spoil), 4)


def _spoil(part: torch.nn.Module) -> None:
    if getattr(part, "out_features", 0) > 500:
        part.weight.data[3, 0] = math.inf
