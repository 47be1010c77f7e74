"""Rank-restricted LM heads against brute force, autograd, and languages whose entropy is known."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from evaluation import evaluate, numbers
from places import HELPERS
from tiny_models import WINDOW, make_model
from torchrun import launch

from lmsat_plugin import measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.measurement.training_stream import shared_text, training_text
from lmsat_plugin.model.anatomy import dissect
from lmsat_plugin.model.cross_entropy import score_tokens
from lmsat_plugin.model.lm_head import Head
from lmsat_plugin.model.low_rank import Truncation, nested_losses
from lmsat_plugin.probes.rank_head import training as head_training
from lmsat_plugin.probes.rank_head import training_state
from lmsat_plugin.probes.rank_head.settings import RankHeadSettings, default_rate
from lmsat_plugin.probes.rank_head.training import HeadTrainer, LowRankHead, cosine_schedule
from lmsat_plugin.probes.rank_head.training_state import TrainingState
from lmsat_plugin.settings import parse_settings
from lmsat_plugin.synthetic import MarkovSource
from lmsat_plugin.text.corpora import Corpus, CorpusSettings
from lmsat_plugin.text.tokenization import tokenize


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LMSAT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Enough text for both measuring and training; no document is another's."""
    from lmsat_plugin.text.corpora import sample

    return [text[:1500] for text in list(sample(CorpusSettings()))[:60] if text]


def random_head(rows=300, width=12, seed=0, **parts) -> tuple[Head, torch.Tensor, torch.Tensor]:
    """Return a head, 50 states about a mean of their own, and their targets."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, width, generator=generator)
    states = torch.randn(50, width, generator=generator) * torch.linspace(0.1, 3, width) + 1
    targets = torch.randint(rows, (50,), generator=generator)
    return Head(weight, **parts), states, targets


# The best approximations.


@pytest.mark.parametrize("weighted", [False, True])
def test_truncation_is_the_best_approximation(weighted):
    """Against NumPy's SVD of W M^½ with SciPy's root, and its error against a loop over states."""
    from scipy.linalg import sqrtm

    head, states, _ = random_head()
    weight, states = head.weight_VD.double(), states.double()
    moment = states.T @ states / len(states)
    root = sqrtm(moment.numpy()) if weighted else np.eye(12)
    u, s, v = np.linalg.svd(weight.numpy() @ root, full_matrices=False)
    truncation = Truncation.of(torch.linalg.qr(weight, mode="r").R, moment if weighted else None)
    np.testing.assert_allclose(truncation.singular_D, s, rtol=1e-9)
    errors = truncation.error(torch.linalg.qr(weight, mode="r").R, moment, [1, 5, 12])
    for rank, error in zip([1, 5, 12], errors, strict=True):
        expected = (u[:, :rank] * s[:rank]) @ v[:rank] @ np.linalg.inv(root)
        low = truncation.weight(weight, rank)
        np.testing.assert_allclose(low, expected, atol=1e-9)
        distances = ((states @ (weight - low).T) ** 2).sum(1)
        assert float(error) == pytest.approx(float(distances.mean().sqrt()), abs=1e-9)
        if weighted:
            assert float(error) == pytest.approx(math.sqrt((s[rank:] ** 2).sum()), abs=1e-9)


def test_truncation_in_a_singular_metric_is_still_the_head_at_full_rank():
    """Of fewer states than the width, and without the direction that a norm without bias takes away."""
    head, states, _ = random_head()
    states = states[:5].double()
    weight = head.weight_VD.double()
    truncation = Truncation.of(torch.linalg.qr(weight, mode="r").R, states.T @ states / 5)
    torch.testing.assert_close(truncation.weight(weight, 12), weight, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        states @ truncation.weight(weight, 5).T, states @ weight.T, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("parts", [{}, {"scale": 0.3, "softcap": 4.0}, {"bias_V": torch.arange(300) / 100.0}])
def test_nested_losses_are_those_of_each_head_alone(parts, monkeypatch):
    monkeypatch.setattr("lmsat_plugin.model.cross_entropy._CPU_TILE", (16, 70))
    head, states, targets = random_head(**parts)
    triangle = torch.linalg.qr(head.weight_VD.double(), mode="r").R
    truncation = Truncation.of(triangle, states.double().T @ states.double())
    expanded = truncation.expanded(head.weight_VD, torch.float32)
    found = nested_losses(states, targets, truncation, expanded, [1, 3, 12], head)
    for losses, rank in zip(found, [1, 3, 12], strict=True):
        low = dataclasses.replace(head, weight_VD=truncation.weight(head.weight_VD.double(), rank))
        logits = low.logits(states.double())
        expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)


def test_hits_are_where_the_target_is_the_most_probable(monkeypatch):
    monkeypatch.setattr("lmsat_plugin.model.cross_entropy._CPU_TILE", (16, 70))
    head, states, targets = random_head()
    targets[::2] = (states @ head.weight_VD.T).argmax(1)[::2]
    hits = torch.cat([scores.hits_N for scores in score_tokens(states, targets, head)])
    assert torch.equal(hits, (states @ head.weight_VD.T).argmax(1) == targets)


# The curves of whole models.


def test_full_rank_is_the_model_and_truncated_is_head_rank(architecture, checkpoint, texts, tokenizer):
    options = {"tokenizer": tokenizer, "max_tokens": 1500, "max_length": WINDOW}
    model = make_model(architecture)
    width = model.get_output_embeddings().weight.shape[1]
    outcome = measure(model, ["loss", "rank_head"], corpus=texts, ranks=[4, width], **options)
    metrics = outcome.metrics
    assert metrics["rank_head/full_loss"] == pytest.approx(metrics["loss/loss"], rel=1e-12)
    for kind in ("truncated", "weighted_truncated"):
        assert metrics[f"rank_head/{kind}_loss_rank_{width}"] == pytest.approx(metrics["loss/loss"], abs=1e-5)
        gaps = np.abs(outcome.arrays[f"rank_head/{kind}_by_document"].sum(1) / 1500 - metrics["loss/loss"])
        assert (gaps <= outcome.arrays[f"rank_head/{kind}_bound"] + 1e-5).all()
    lm = SaturationLM(pretrained=str(checkpoint(architecture)), dtype="float32", device="cpu", head_rank=4)
    low = measure(lm.model, ["loss"], corpus=texts, **options).metrics["loss/loss"]
    assert metrics["rank_head/truncated_loss_rank_4"] == pytest.approx(low, rel=1e-5)
    assert low != pytest.approx(metrics["loss/loss"], rel=5e-5)


def test_default_ranks_and_names_through_lm_eval(checkpoint, texts, tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    model_args = {"pretrained": str(checkpoint("gpt_neox")), "dtype": "float32", "device": "cpu"}
    options = {"corpus": str(corpus), "max_tokens": 1500, "model_args": model_args}
    found = numbers(evaluate("lmsat", ["lmsat_rank_head"], **options))
    ranks = [
        int(key[1].split("_")[-1][:-5])
        for key in found
        if key[1].startswith("truncated_loss") and "err" not in key[1]
    ]
    assert ranks == [1, 2, 4, 8, 16, 32, 48]
    assert found["lmsat_rank_head", "truncated_loss_rank_8_stderr,none"] > 0
    results = evaluate("lmsat", ["lmsat_rank_head"], **options, ranks=[16, 8], train_tokens=2048, init="svd")
    found = numbers(results)
    for rank in (8, 16):
        loss = found["lmsat_rank_head", f"loss_rank_{rank},none"]
        assert found["lmsat_rank_head", f"perplexity_rank_{rank},none"] == pytest.approx(math.exp(loss))
        assert 0 <= found["lmsat_rank_head", f"accuracy_rank_{rank},none"] <= 1
        assert found["lmsat_rank_head", f"loss_rank_{rank}_stderr,none"] > 0
    training = results["config"]["lmsat"]["probes"]["rank_head"]["training"]
    assert training["tokens"] == pytest.approx(2048, abs=16)
    assert training["steps"] == 2


# Training.


@pytest.mark.parametrize(
    "parts", [{}, {"scale": 0.3, "softcap": 4.0}, {"bias_V": torch.arange(300) / 100.0, "scale": 2.0}]
)
def test_training_is_that_of_autograd(parts, monkeypatch):
    """Ten steps against the plain way: whole logits, autograd, clipping, torch's AdamW."""
    monkeypatch.setattr(head_training, "_CPU_LOGITS", 300 * 4 * 7)
    head, states, targets = random_head(**parts)
    torch.manual_seed(1)
    factors = [(torch.randn(300, rank), torch.randn(rank, 12)) for rank in (3, 8)]
    heads = [LowRankHead(left.clone(), right.clone(), 0.01) for left, right in factors]
    trainer = HeadTrainer(heads, head, lambda states: states)
    batches = [slice(0, 20), slice(20, 50)] * 5
    for step, batch in enumerate(batches):
        trainer.step(states[batch], targets[batch], len(targets[batch]), cosine_schedule(step, 10))
    for index, (left, right) in enumerate(factors):
        left.requires_grad_(), right.requires_grad_()
        optimizer = torch.optim.AdamW([left, right], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine_schedule(step, 10))
        for step, batch in enumerate(batches):
            logits = head.finish(states[batch] @ right.T @ left.T, head.bias_V)
            loss = torch.nn.functional.cross_entropy(logits, targets[batch])
            assert trainer.losses[step][index] == pytest.approx(float(loss.detach()), rel=1e-4)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([left, right], 1.0)
            optimizer.step()
            schedule.step()
        torch.testing.assert_close(heads[index].left_VR, left.detach(), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(heads[index].right_RD, right.detach(), rtol=1e-3, atol=1e-3)


def test_schedule_is_pythias():
    rates = [cosine_schedule(step, 1000) for step in range(1001)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert max(rates) == 1
    assert rates[505] == pytest.approx(0.55)
    assert rates[1000] == pytest.approx(0.1)


def exact_model(source: MarkovSource, width: int):
    """Return a Llama without blocks whose states tell the last token, under a head of random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=source.vocabulary + 1, hidden_size=width, num_hidden_layers=0, intermediate_size=8,
        num_attention_heads=1, max_position_embeddings=WINDOW, bos_token_id=source.vocabulary,
        eos_token_id=source.vocabulary, tie_word_embeddings=False,
    )  # fmt: skip
    return LlamaForCausalLM(config).float().eval()


@pytest.mark.parametrize(("init", "left"), [("svd", 0.03), ("normal", 0.15)])
def test_trained_heads_approach_the_entropy_rate_from_above(init, left):
    """A source of 16 tokens; states that tell the last token: with enough rank and text nothing else is lost."""
    source = MarkovSource.make(16, rank=4, seed=1, concentration=0.5)
    model = exact_model(source, 24)
    outcome = measure(
        model, ["rank_head"], corpus=list(source.documents(2000, 60)), tokenizer=source.tokenizer(),
        max_tokens=20_000, max_length=WINDOW, ranks=[1, 4, 16], train_tokens=90_000, batch_tokens=1024,
        init=init, learning_rate=0.05,
    )  # fmt: skip
    # The first token of a document has no context; the others know theirs.
    first = -float(source.stationary @ np.log(source.stationary))
    rate = (first + 59 * source.entropy_rate) / 60
    losses = [outcome.metrics[f"rank_head/loss_rank_{rank}"] for rank in (1, 4, 16)]
    error = outcome.metrics["rank_head/loss_rank_16_stderr"]
    assert losses[0] > losses[1] > losses[2] - 0.01
    assert rate - 3 * error < losses[2] < rate + 3 * error + left
    assert losses[0] > rate + 0.1
    assert outcome.metrics["rank_head/full_loss"] > rate + 0.5


def train(model, tokenizer, texts, **settings):
    settings = {"ranks": [4, 48], "train_tokens": 12_000, "batch_tokens": 512, **settings}
    return measure(
        model,
        ["rank_head"],
        corpus=texts,
        tokenizer=tokenizer,
        max_tokens=1500,
        max_length=WINDOW,
        **settings,
    )


def test_a_killed_training_goes_on_where_it_was(tokenizer, texts, monkeypatch, tmp_path):
    monkeypatch.setattr(head_training, "_ROUND_TOKENS", 2048)
    monkeypatch.setattr(training_state, "_SAVE_SECONDS", 0.0)
    whole = train(make_model("gpt_neox"), tokenizer, texts)
    save, saved = TrainingState.save, []

    def kill(self, trainer, rounds, last):
        self._next = 0
        save(self, trainer, rounds, last)
        saved.append(rounds)
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingState, "save", kill)
    with pytest.raises(KeyboardInterrupt):
        train(make_model("gpt_neox"), tokenizer, texts)
    [left] = (tmp_path / "cache").rglob("*.safetensors")
    again = train(make_model("gpt_neox"), tokenizer, texts)
    assert saved == [1, 2, 3, 4, 5, 6], "the first three rounds are not trained again"
    assert again.metrics == whole.metrics
    np.testing.assert_array_equal(
        again.arrays["rank_head/training_loss"], whole.arrays["rank_head/training_loss"]
    )
    assert not left.exists(), "a training that is through leaves nothing behind"


def test_a_kill_while_the_heads_are_measured_costs_no_training(tokenizer, texts, monkeypatch):
    whole = train(make_model("gpt_neox"), tokenizer, texts)

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lmsat_plugin.probes.rank_head.probe.nested_losses", kill)
        with pytest.raises(KeyboardInterrupt):
            train(make_model("gpt_neox"), tokenizer, texts)
    monkeypatch.setattr(HeadTrainer, "step", kill)
    assert train(make_model("gpt_neox"), tokenizer, texts).metrics == whole.metrics


def test_another_model_or_setting_does_not_take_over_a_training(tokenizer, texts, monkeypatch):
    monkeypatch.setattr(head_training, "_ROUND_TOKENS", 2048)

    def paths(**changes):
        found = []
        monkeypatch.setattr(TrainingState, "load", lambda self, trainer: found.append(self.path) or 10**6)
        monkeypatch.setattr(HeadTrainer, "finish", lambda self: None)
        model = make_model("gpt_neox", seed=changes.pop("seed", 0))
        train(model, tokenizer, changes.pop("texts", texts), **changes)
        return found[0]

    same = paths()
    assert paths() == same
    others = [{"seed": 1}, {"learning_rate": 0.1}, {"train_seed": 1}, {"texts": texts[1:]}, {"ranks": [4]}]
    assert len({same, *(paths(**other) for other in others)}) == len(others) + 1


def test_a_cut_state_is_left_out(tokenizer, texts, monkeypatch, tmp_path, caplog):
    state = TrainingState(tmp_path / "state.safetensors", synchronise=False)
    state.path.write_bytes(b"\x10\0\0\0\0\0\0\0{cut")
    trainer = HeadTrainer(
        [LowRankHead(torch.randn(9, 2), torch.randn(2, 3), 0.1)], Head(torch.randn(9, 3)), None
    )
    assert state.load(trainer) == 0
    assert "is left out: it cannot be read" in caplog.text


def test_heads_that_diverge_are_said_to(tokenizer, texts, caplog):
    outcome = train(make_model("gpt_neox"), tokenizer, texts, learning_rate=[0.001, 1e5])
    assert outcome.metrics["rank_head/diverged_rank_48"] == 1
    assert "rank_head/loss_rank_48" not in outcome.metrics
    assert math.isfinite(outcome.metrics["rank_head/loss_rank_4"])
    assert "the head of rank 48 diverged at a learning rate of 100000" in caplog.text


def test_search_takes_the_best_rate(tokenizer, texts):
    found = train(make_model("gpt_neox"), tokenizer, texts, learning_rate="search")
    rates = found.provenance["probes"]["rank_head"]["training"]["learning_rates"]
    defaults = [default_rate("svd", rank, 48, 512) for rank in (4, 48)]
    assert {rate / default for rate, default in zip(rates, defaults, strict=True)} <= {0.25, 0.5, 1, 2, 4}
    plain = train(make_model("gpt_neox"), tokenizer, texts, learning_rate=rates)
    assert plain.metrics == found.metrics, "the search leaves no trace"


@pytest.mark.parametrize(
    ("rank", "width", "rate"),
    [
        (32, 1024, 2e-2),
        (128, 2048, 1e-2),
        (512, 1024, 7e-3),
        (2048, 2048, 2e-3),
        (4096, 4096, 1e-3),
        (8, 64, 2e-2),
    ],
)
def test_rates_of_normal_heads_are_the_papers(rank, width, rate):
    """Fig. 9 of Godey et al. 2024, as digitised."""
    assert default_rate("normal", rank, width, 1024) == pytest.approx(rate)


SCRIPT = """
import json, sys
sys.path.insert(0, TESTS)
from evaluation import evaluate

results = evaluate("lmsat", ["lmsat_rank_head"], **json.loads(sys.argv[1]))
if results is not None:
    with open(sys.argv[2], "x") as file:
        json.dump({"results": results["results"]}, file)
"""


def test_two_processes_train_the_heads_of_one(checkpoint, texts, tmp_path):

    corpus, script, found = tmp_path / "corpus.jsonl", tmp_path / "script.py", tmp_path / "found.json"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    script.write_text(SCRIPT.replace("TESTS", repr(str(HELPERS))))
    options = {
        "model_args": {"pretrained": str(checkpoint("gpt_neox")), "dtype": "float32", "device": "cpu"},
        "corpus": str(corpus), "max_tokens": 1500, "batch_size": 3, "ranks": [4, 48], "train_tokens": 12_000,
        "batch_tokens": 500,
    }  # fmt: skip
    launch(2, str(script), json.dumps(options), str(found))
    one, two = (
        numbers(evaluate("lmsat", ["lmsat_rank_head"], **options)),
        numbers(json.loads(found.read_text())),
    )
    assert one.keys() == two.keys()
    assert {key[1]: two[key] for key in two} == pytest.approx({key[1]: one[key] for key in one}, rel=2e-4)


# Text apart.


def test_training_text_is_apart_from_what_is_measured(tokenizer, texts):
    documents = Corpus("documents", (*texts, texts[0]))
    settings = CorpusSettings(corpus="documents", max_tokens=1000, seed=3)
    measured = tokenize(documents, settings, tokenizer, prefix=0, window=WINDOW)
    assert measured.documents[-1].n_bytes < len(documents.documents[measured.documents[-1].source].encode())
    found = training_text(measured, documents, settings, tokenizer, 50_000, None, least=1000)
    seen = {documents.documents[document.source] for document in measured.documents}
    rest = "".join(tokenizer.decode(document.tokens) for document in found.documents)
    assert not any(text in rest for text in seen)
    cut = measured.documents[-1]
    remainder = documents.documents[cut.source].encode()[cut.n_bytes :].decode()
    assert remainder in rest, "what was cut off is there to train on"
    assert shared_text(measured, found) < 0.05


def test_shared_text_is_found_wherever_it_begins(tokenizer, texts):
    settings = CorpusSettings(corpus="documents", max_tokens=None)

    def tokenized(*parts):
        return tokenize(Corpus("documents", parts), settings, tokenizer, prefix=0, window=WINDOW)

    one = tokenized(texts[0], texts[1])
    assert shared_text(one, tokenized("A heading. " + texts[0] + texts[1])) > 0.9
    assert 0.2 < shared_text(one, tokenized(texts[0], texts[2])) < 0.8
    assert shared_text(one, tokenized(texts[3], texts[4])) < 0.1
    assert shared_text(tokenized("short"), tokenized("short")) == 0


# Heads as models.


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2", "gemma2"])
def test_saved_heads_load_as_models(architecture, checkpoint, tokenizer, texts, tmp_path):
    """The loss of a trained head is that of lm-eval's task with ``head=FILE``."""
    heads = tmp_path / "heads"
    outcome = train(make_model(architecture), tokenizer, texts, heads=str(heads))
    for rank in (4, 48):
        for stem, metric in ((f"rank_{rank}", "loss"), (f"truncated_rank_{rank}", "weighted_truncated_loss")):
            [path] = heads.glob(f"*__{stem}.safetensors")
            lm = SaturationLM(str(checkpoint(architecture)), head=str(path), dtype="float32", device="cpu")
            loss = measure(
                lm.model, ["loss"], corpus=texts, tokenizer=tokenizer, max_tokens=1500, max_length=WINDOW
            ).metrics["loss/loss"]
            assert loss == pytest.approx(outcome.metrics[f"rank_head/{metric}_rank_{rank}"], rel=1e-5)
    assert len(list(heads.iterdir())) == 4
    assert lm.get_model_info()["model_num_parameters"] > 0


def test_truncated_heads_are_saved_without_any_training(tokenizer, texts, tmp_path):
    outcome = train(
        make_model("gpt_neox"), tokenizer, texts, train_tokens=None, heads=str(tmp_path / "heads")
    )
    names = {path.name.split("__")[-1] for path in (tmp_path / "heads").iterdir()}
    assert names == {"truncated_rank_4.safetensors", "truncated_rank_48.safetensors"}
    assert "rank_head/loss_rank_4" not in outcome.metrics


def test_rates_go_with_the_ranks_in_the_order_given(tokenizer, texts):
    outcome = train(make_model("gpt_neox"), tokenizer, texts, ranks=[48, 4], learning_rate=[0.001, 0.01])
    assert outcome.arrays["rank_head/ranks"].tolist() == [4, 48]
    assert outcome.arrays["rank_head/learning_rates"].tolist() == [0.01, 0.001]


@pytest.mark.parametrize(
    ("text", "other", "message"),
    [
        (None, None, "is no file with a head of lmsat's .*: give one that lmsat_rank_head saved"),
        ("nonsense", None, "is no file with a head of lmsat's"),
        (None, (576, 40), "is for a vocabulary of 576 rows and the width 40, but this model has 576 and 48"),
        (None, (500, 48), "is for a vocabulary of 500 rows and the width 48, but this model has 576 and 48"),
    ],
)
def test_head_files_that_do_not_fit(text, other, message, checkpoint, tmp_path):
    from lmsat_plugin.model.head_files import save_restricted_head

    path = tmp_path / "head.safetensors"
    if text is not None:
        path.write_text(text)
    if other is not None:
        save_restricted_head(path, torch.randn(other[0], 3), torch.randn(3, other[1]), {})
    with pytest.raises(LmsatError, match=message):
        SaturationLM(str(checkpoint("gpt_neox")), head=str(path), device="cpu")


# Bad input.


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ranks": [0]}, "ranks=0 is not right"),
        ({"ranks": [8, 8]}, "rank 8 is given twice"),
        ({"ranks": ["x"]}, "ranks=x is not right"),
        ({"ranks": [1.5]}, "ranks=1.5 is not right"),
        ({"ranks": []}, "ranks=.* is not right"),
        ({"learning_rate": -1}, "learning_rate=-1 is not right"),
        ({"init": "zero"}, "init=zero is not right"),
        ({"train_tokens": 0}, "train_tokens=0 is not right"),
    ],
)
def test_settings_that_are_none(values, message):
    with pytest.raises(LmsatError, match=message):
        parse_settings(RankHeadSettings, values)


def test_one_rank_may_stand_alone():
    assert parse_settings(RankHeadSettings, {"ranks": 8}).ranks == (8,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ranks": [4, 49]}, "ranks=49 is above the width of this head: give ranks from 1 to 48"),
        ({"batch_tokens": 20_000}, "train_tokens=12000 is less than one batch of 20000"),
        (
            {"train_tokens": 10**6},
            "the training wants 1,000,000 tokens, more than the .* tokens that corpus=",
        ),
        ({"learning_rate": [0.1]}, "learning_rate has 1 values for 2 ranks"),
        ({"train_corpus": "nowhere"}, "corpus=nowhere is neither a file"),
        ({"heads": "/proc/heads"}, "cannot write to /proc/heads"),
    ],
)
def test_training_that_cannot_be(settings, message, tokenizer, texts):
    with pytest.raises(LmsatError, match=message):
        train(make_model("gpt_neox"), tokenizer, texts, **settings)


def test_a_train_corpus_that_holds_the_text_measured(tokenizer, texts, tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("\n".join(texts))
    with pytest.raises(LmsatError, match=r"\d\d% of the text measured is in train_corpus=.*train.txt too"):
        train(make_model("gpt_neox"), tokenizer, texts, train_corpus=str(path))


def test_too_little_text_leaves_the_plain_curve(tokenizer, texts, caplog):
    outcome = measure(
        make_model("gpt_neox"), ["rank_head"], corpus=texts[:3], tokenizer=tokenizer, max_tokens=None, ranks=[4]
    )  # fmt: skip
    assert "rank_head/truncated_loss_rank_4" in outcome.metrics
    assert "rank_head/weighted_truncated_loss_rank_4" not in outcome.metrics
    assert "no weighted truncated heads: the training wants" in caplog.text


def test_tied_heads_are_trained_apart(tokenizer, texts, caplog):
    model = make_model("gpt2")
    before = model.get_input_embeddings().weight.clone()
    train(model, tokenizer, texts)
    assert "The LM head is tied to the embeddings: the heads are trained apart from them" in caplog.text
    assert torch.equal(model.get_input_embeddings().weight, before)


# The gradient's bottleneck.


def test_suppressed_share_against_autograd_and_a_dense_projector(architecture, tokenizer, texts):
    model = make_model(architecture)
    metrics = measure(
        model,
        ["gradient_bottleneck"],
        corpus=[texts[0]],
        tokenizer=tokenizer,
        max_length=WINDOW,
        max_tokens=40,
    ).metrics
    tokens = torch.tensor([0, *tokenizer.encode(texts[0])[:40]])
    anatomy = dissect(model, tokens[:-1])
    with torch.no_grad():
        states = model.base_model(tokens[None, :-1]).last_hidden_state[0].double()
    weight = anatomy.head.weight_VD.double()
    products = (states @ weight.T).requires_grad_()
    bias = None if anatomy.head.bias_V is None else anatomy.head.bias_V.double()
    logits = products + (0 if bias is None else bias)
    logits = logits * anatomy.head.scale
    if anatomy.head.softcap is not None:
        logits = torch.tanh(logits / anatomy.head.softcap) * anatomy.head.softcap
    loss = torch.nn.functional.cross_entropy(logits, tokens[1:], reduction="sum")
    [gradient] = torch.autograd.grad(loss, products)
    basis = torch.linalg.svd(weight, full_matrices=False).U
    lost = gradient - gradient @ basis @ basis.T
    shares = lost.norm(dim=1) / gradient.norm(dim=1)
    energy = (lost**2).sum() / (gradient**2).sum()
    assert metrics["gradient_bottleneck/suppressed_norm_share"] == pytest.approx(
        float(shares.mean()), abs=1e-5
    )
    assert metrics["gradient_bottleneck/suppressed_energy_share"] == pytest.approx(float(energy), abs=1e-5)


def test_a_wide_head_suppresses_nothing(tokenizer, texts):
    """A head of as many columns as rows passes every gradient back."""
    source = MarkovSource.make(15, seed=0)
    found = measure(
        exact_model(source, 16), ["gradient_bottleneck"], corpus=list(source.documents(5, 20)),
        tokenizer=source.tokenizer(), max_length=WINDOW,
    )  # fmt: skip
    assert found.metrics["gradient_bottleneck/suppressed_norm_share"] == pytest.approx(0, abs=1e-3)
