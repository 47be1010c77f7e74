"""Log-likelihoods with shared prefixes are those of each sequence alone, on every architecture."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from tiny_models import ARCHITECTURES, GROUPED, ROWS, WINDOW, make_model

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.anatomy import dissect
from lmsat_plugin.scoring import scorer as scorer_module
from lmsat_plugin.scoring.continuations import CPU_LIMITS, ContinuationScorer, ScoringPlan
from lmsat_plugin.scoring.prefix_tree import Limits

CPU = torch.device("cpu")
LIMITS = {
    "as on a CPU": CPU_LIMITS,
    "rows": Limits(row=1000, trunk=0, saved=1),
    "trunks": Limits(row=20, trunk=0, saved=10),
    "trunks behind trunks": Limits(row=12, trunk=4, saved=1),
}


def draw(random_: random.Random, least: int, most: int) -> list[int]:
    return [random_.randint(2, 500) for _ in range(random_.randint(least, most))]


def requests_of(model: torch.nn.Module) -> list[tuple[list[int], list[int]]]:
    """Return ragged questions behind two headers longer than the sliding windows; a third of the options are greedy."""
    random_, requests = random.Random(0), []
    for _ in range(2):
        header = draw(random_, 20, 20)
        for _ in range(3):
            prompt = header + draw(random_, 2, 9)
            options = [[random_.choice([5, 6]), *draw(random_, 0, 6)] for _ in range(4)]
            options.append([*options[-1], 7, 8])
            options += [greedy(model, prompt, length) for length in (1, 3)]
            requests += [(prompt, option) for option in options]
    requests += [([3], [4]), ([3] * 90, [4, 5]), (draw(random_, 30, 30), draw(random_, WINDOW, WINDOW))]
    return requests


@torch.no_grad()
def greedy(model: torch.nn.Module, prompt: list[int], length: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(length):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


@torch.no_grad()
def one_by_one(model: torch.nn.Module, requests: list) -> tuple[list[float], list[bool]]:
    sums, hits = [], []
    for context, continuation in requests:
        tokens = torch.tensor((context + continuation)[-(WINDOW + 1) :])
        logs = torch.log_softmax(model(tokens[None, :-1]).logits[0].double(), -1)[-len(continuation) :]
        target = torch.tensor(continuation)
        sums.append(float(logs.gather(1, target[:, None]).sum()))
        hits.append(bool((logs.argmax(1) == target).all()))
    return sums, hits


EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
OTHERS = {
    "mixtral": lambda: transformers.MixtralConfig(**GROUPED, **EXPERTS, sliding_window=16),
    "gpt_oss": lambda: transformers.GptOssConfig(**GROUPED, **EXPERTS, sliding_window=16),
    # Distances between places, not positions, enter the attention.
    "bloom": lambda: transformers.BloomConfig(vocab_size=ROWS, hidden_size=48, n_layer=3, n_head=4),
    "mpt": lambda: transformers.MptConfig(d_model=48, n_heads=4, n_layers=3, max_seq_len=WINDOW, vocab_size=ROWS),
    "gpt_neo": lambda: transformers.GPTNeoConfig(
        vocab_size=ROWS,
        hidden_size=48,
        num_layers=2,
        num_heads=4,
        max_position_embeddings=WINDOW,
        attention_types=[[["global", "local"], 1]],
        window_size=16,
    ),
    # A state in the place of keys and values, which the configuration does not say.
    "rwkv": lambda: transformers.RwkvConfig(
        vocab_size=ROWS, hidden_size=48, num_hidden_layers=3, context_length=WINDOW
    ),
}
WITHOUT_SHARING = {"mamba", "bloom", "mpt", "gpt_neo", "rwkv"}


def model_called(name: str) -> torch.nn.Module:
    """Return a tiny model in which each token before another matters."""
    if name in ARCHITECTURES:
        return make_model(name).eval()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(OTHERS[name](), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.1)
    return model


@pytest.mark.parametrize("name", [*ARCHITECTURES, *OTHERS])
def test_shared_prefixes_change_no_number(name):
    model = model_called(name)
    requests = requests_of(model)
    sums, hits = one_by_one(model, requests)
    assert 10 < sum(hits) < len(hits) - 10
    anatomy = dissect(model, torch.arange(2, 20))
    for limits in LIMITS.values():
        plan = ScoringPlan.of(requests, WINDOW, limits)
        scores, record = ContinuationScorer(anatomy=anatomy, device=CPU, batch_size=4).answer(plan)
        assert scores.sums == pytest.approx(sums, rel=1e-5, abs=3e-5)
        assert scores.greedy.tolist() == hits
        if name not in WITHOUT_SHARING:
            assert record.shared_prefixes, record
        assert record.tokens_asked == sum(min(len(a) + len(b) - 1, WINDOW) for a, b in requests)
        assert record.truncated == 2
        if record.shared_prefixes:
            assert record.tokens_computed < record.tokens_asked / 2
        without, record = ContinuationScorer(anatomy=anatomy, device=CPU).answer(plan, share=False)
        assert without.sums == pytest.approx(sums, rel=1e-5, abs=3e-5)
        assert without.greedy.tolist() == hits
        assert not record.shared_prefixes
    if name in WITHOUT_SHARING:
        _, record = ContinuationScorer(anatomy=anatomy, device=CPU).answer(plan)
        assert not record.shared_prefixes


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_eager_attention_and_float64(name):
    model = make_model(name).eval().double()
    model.set_attn_implementation("eager")
    requests = requests_of(model)
    plan = ScoringPlan.of(requests, WINDOW, LIMITS["trunks behind trunks"])
    scorer = ContinuationScorer(anatomy=dissect(model, torch.arange(2, 20)), device=CPU)
    scores, record = scorer.answer(plan)
    assert record.shared_prefixes
    assert scores.sums == pytest.approx(one_by_one(model, requests)[0], rel=1e-7)  # norms are in float32


def test_a_head_that_is_not_found_is_the_models_own():
    model = make_model("llama").eval()
    requests = requests_of(model)
    anatomy = replace(dissect(model, torch.arange(2, 20)), head=None)
    scores, _ = ContinuationScorer(anatomy=anatomy, device=CPU).answer(ScoringPlan.of(requests, WINDOW, CPU_LIMITS))
    sums, hits = one_by_one(model, requests)
    assert scores.sums == pytest.approx(sums, rel=1e-5, abs=3e-5)
    assert scores.greedy.tolist() == hits


class Deaf(torch.nn.Module):
    """A model's trunk that takes no positions and masks into account."""

    def __init__(self, base: torch.nn.Module, *, refuses: bool) -> None:
        super().__init__()
        self.base, self.refuses = base, refuses

    def forward(self, input_ids, use_cache=False, attention_mask=None, position_ids=None, past_key_values=None):
        if self.refuses and position_ids is not None:
            raise TypeError("forward() got an unexpected keyword argument 'position_ids'")
        return self.base(input_ids=input_ids, use_cache=use_cache, past_key_values=past_key_values)


@pytest.mark.parametrize(("refuses", "reason"), [(True, "does not take"), (False, "gives other numbers")])
def test_a_model_that_cannot_share_computes_requests_whole(refuses, reason, caplog):
    model = make_model("llama").eval()
    requests = requests_of(model)
    anatomy = dissect(model, torch.arange(2, 20))
    anatomy = replace(anatomy, base=Deaf(anatomy.base, refuses=refuses))
    plan = ScoringPlan.of(requests, WINDOW, CPU_LIMITS)
    scorer = ContinuationScorer(anatomy=anatomy, device=CPU)
    for _ in range(2):
        scores, record = scorer.answer(plan)
        assert scores.sums == pytest.approx(one_by_one(model, requests)[0], rel=1e-5)
        assert not record.shared_prefixes
        assert reason in record.reason
    assert caplog.text.count("Prefixes are not shared") == 1, "an architecture is tried once"


def test_positions_that_depend_on_the_length_are_not_shared():
    model = make_model("llama").eval()
    model.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    plan = ScoringPlan.of(requests_of(model), WINDOW, CPU_LIMITS)
    _, record = ContinuationScorer(anatomy=dissect(model, torch.arange(2, 20)), device=CPU).answer(plan)
    assert "depend on the length" in record.reason


@pytest.mark.parametrize("fits", [200, 60, 40])
def test_batches_shrink_where_memory_runs_out(fits, monkeypatch):
    model = make_model("llama").eval()
    requests = [request for request in requests_of(model) if len(request[0]) + len(request[1]) <= 40]
    anatomy, tokens = dissect(model, torch.arange(2, 20)), []
    forward = scorer_module.Scorer._forward

    def limited(self, batch, *arguments):
        if batch.inputs_BT.numel() > fits:
            raise torch.OutOfMemoryError("out of memory")
        tokens.append(batch.inputs_BT.numel())
        return forward(self, batch, *arguments)

    monkeypatch.setattr(scorer_module.Scorer, "_forward", limited)
    scorer = ContinuationScorer(anatomy=anatomy, device=CPU)
    for limits in (Limits(row=1000, trunk=0), Limits(row=1000, trunk=4, saved=1)):
        scores, _ = scorer.answer(ScoringPlan.of(requests, WINDOW, limits))
        assert scores.sums == pytest.approx(one_by_one(model, requests)[0], rel=1e-5)
    assert max(tokens) <= fits
    monkeypatch.setattr(scorer_module, "is_out_of_memory", lambda error: True)
    long = ScoringPlan.of([([3] * (fits + 1), [4]), ([3] * fits, [5])], 1000, CPU_LIMITS)
    with pytest.raises(LmsatError, match=f"memory does not suffice for one sequence of {fits + 1} tokens: set max_len"):
        scorer.answer(long)


def test_nan_stays_nan():
    model = make_model("llama").eval()
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = torch.nan
    requests = [([5] * 20 + [8], [9, 4]), ([5] * 20 + [7], [9, 4]), ([5] * 20 + [7], [9, 5])]
    scorer = ContinuationScorer(anatomy=dissect(model, torch.arange(10, 20)), device=CPU)
    scores, _ = scorer.answer(ScoringPlan.of(requests, WINDOW, LIMITS["rows"]))
    assert np.isnan(scores.sums).tolist() == [False, True, True]
