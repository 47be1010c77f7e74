"""Log-likelihoods of multiple-choice and cloze requests: ``lmsat`` against lm-eval's ``hf`` at its best batch size.

Models with random weights of Pythia-70m's and SmolLM2-135M's shape in float32; synthetic requests of the lengths of
HellaSwag (four options of 25 tokens behind a prompt of 70, without and with ten shots of 700 tokens drawn for each
document), MMLU (four options of one token behind five fixed shots) and LAMBADA. Beside the ratio: how many tokens go
through the model, and the share of lmsat's time that is in matrix products.

Besides, on a model of two layers under 50,304 rows of vocabulary: 10,000 requests of which a third are the model's own
greedy tokens, and in bfloat16 how far log-likelihoods are from those of an exact head on the same states.
"""

from __future__ import annotations

import contextlib
import io
import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import common
import torch
import transformers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lm_eval.api.instance import Instance


@dataclass(frozen=True)
class Work:
    """Requests of one kind, and the ratios to reach with Pythia-70m's and SmolLM2-135M's shape."""

    name: str
    make: Callable[[Words, int], list[tuple[str, str]]]
    documents: int
    targets: tuple[float, float]


class Words:
    """Draws texts of a number of tokens: words that are one token each with the space before them."""

    def __init__(self, tokenizer: Any) -> None:
        names = [tokenizer.decode([index]) for index in range(2000, 20000)]
        # The words are to stay one token each, side by side.
        self._words = [name for name in names if name.startswith(" ") and name[1:].isalpha() and name.isascii()]
        self._random = random.Random(0)

    def draw(self, tokens: int) -> str:
        """Return a text of so many tokens, which begins with a space."""
        return "".join(self._random.choices(self._words, k=tokens))


def choices(words: Words, documents: int, header: int = 0) -> list[tuple[str, str]]:
    requests = []
    for _ in range(documents):
        prompt = words.draw(header + 70)
        requests += [(prompt, words.draw(25)) for _ in range(4)]
    return requests


def letters(words: Words, documents: int) -> list[tuple[str, str]]:
    requests = []
    for _ in range(documents // 32):
        header = words.draw(600)
        for _ in range(32):
            prompt = header + words.draw(100)
            requests += [(prompt, words.draw(1)) for _ in range(4)]
    return requests


def clozes(words: Words, documents: int) -> list[tuple[str, str]]:
    return [(words.draw(words._random.randint(60, 100)), words.draw(2)) for _ in range(documents)]


WORKS = [
    Work("four options of 25 tokens, prompt of 70", choices, 32, (2.0, 1.9)),
    Work("the same after a header of 700", partial(choices, header=700), 6, (4.5, 3.5)),
    Work("four one-token options, 32 documents a header", letters, 32, (5.0, 3.0)),
    Work("one continuation of 2 tokens, prompt of 80", clozes, 64, (1.7, 1.15)),
]

SIZES = (("lmsat", "auto"), ("hf", 1))


def pythia_70m() -> transformers.PreTrainedModel:
    config = transformers.GPTNeoXConfig(
        vocab_size=50304,
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=2048,
        max_position_embeddings=2048,
    )
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def smollm2_135m() -> transformers.PreTrainedModel:
    config = transformers.LlamaConfig(**common.SMOLLM2_135M)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)


SHAPES = {"Pythia-70m": pythia_70m, "SmolLM2-135M": smollm2_135m}


def instances(pairs: Sequence[tuple[str, str]]) -> list[Instance]:
    from lm_eval.api.instance import Instance

    return [Instance("loglikelihood", {}, pair, index, ("work", index, 1)) for index, pair in enumerate(pairs)]


def answer(model: Any, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
    with contextlib.redirect_stderr(io.StringIO()):
        return model.loglikelihood(requests, disable_tqdm=True)


def best_batch(model: Any, requests: Sequence[Instance], sizes: Sequence[int]) -> int:
    """Set and return the batch size with which ``hf`` answers a part of the requests fastest."""
    taken = {}
    for size in sizes:
        model.batch_size_per_gpu = size
        few = requests[: max(size, len(requests) // 4)]
        taken[size] = common.seconds(lambda few=few: answer(model, few)) / len(few)
    model.batch_size_per_gpu = min(taken, key=taken.get)
    return model.batch_size_per_gpu


def in_products(model: Any, requests: Sequence[Instance]) -> float:
    """Return the share of the operators' time that is in matrix products."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        answer(model, requests)
    times = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    return sum(times.get(f"aten::{name}", 0) for name in ("mm", "addmm", "bmm")) / sum(times.values())


def peak_memory(kind: str, name: str) -> float:
    """Return the peak above the loaded model in MiB, in batches of 16. Called in a child process."""
    common.silence()
    tokenizer = transformers.AutoTokenizer.from_pretrained(common.smollm2())
    model = common.load(kind, SHAPES[name]().eval(), tokenizer=tokenizer, batch_size=16)
    requests = instances(choices(Words(tokenizer), 16))
    return common.peak_mebibytes(lambda: answer(model, requests))


def memory_row(name: str) -> common.Row:
    ours, theirs = (common.in_child(peak_memory, kind, name) for kind in ("lmsat", "hf"))
    label = "peak memory above the model, batches of 16, MiB"
    return common.Row(label, f"{ours:.0f}", f"{theirs:.0f}", ours / theirs, at_most=0.25)


def compare(
    work: Work, models: dict[str, Any], requests: list[Instance], target: float, quick: bool
) -> list[common.Row]:
    hf, ours = models["hf"], models["lmsat"]
    best = best_batch(hf, requests, (1,) if quick else (1, 4, 16))
    found: dict[str, list[tuple[float, bool]]] = {}
    runs = {each: lambda each=each: found.update({each: answer(models[each], requests)}) for each in ("lmsat", "hf")}
    # The first call checks that prefixes may be shared, once for all tasks.
    answer(ours, requests)
    times = common.interleaved(runs, 1 if quick else 3)
    pairs = list(zip(found["lmsat"], found["hf"], strict=True))
    apart = max(abs(one[0] - other[0]) / abs(other[0]) for one, other in pairs)
    unequal = sum(one[1] != other[1] for one, other in pairs)
    record = ours.lmsat_downstream
    median = {each: sorted(values)[len(values) // 2] for each, values in times.items()}
    return [
        common.Row(
            f"{work.name}: times faster (hf's best batch: {best})",
            f"{median['lmsat']:.1f} s",
            f"{median['hf']:.1f} s",
            common.ratio(times["hf"], times["lmsat"]),
            at_least=target,
        ),
        common.Row("  tokens", f"{record['tokens_computed']}", f"{record['tokens_asked']}"),
        common.Row("  share of matrix products", "", "", in_products(ours, requests)),
        common.Row("  largest relative difference", "", "", apart + unequal, at_most=1e-5),
    ]


def own_greedy(model: Any, words: Words, documents: int) -> list[tuple[str, str]]:
    """Return four options for each prompt: behind two of three, two are what the model holds most probable."""
    requests: list[tuple[str, str]] = []
    while len(requests) < 4 * documents:
        prompt, own = words.draw(words._random.randint(8, 16)), []
        if len(requests) // 4 % 3:
            tokens = model.tok_encode(prompt)
            with torch.no_grad():
                found = model.model.generate(torch.tensor([tokens]), max_new_tokens=2, do_sample=False)[0]
            greedy = found[len(tokens) :].tolist()
            own = [model.tokenizer.decode(greedy[:length]) for length in (1, 2)]
            # They have to come back as the same tokens from the text.
            if not own[0].strip() or [model._encode_pair(prompt, text)[1] for text in own] != [greedy[:1], greedy]:
                continue
        requests += [(prompt, text) for text in [*own, *(words.draw(2) for _ in range(4 - len(own)))]]
    return requests


def greedy_rows(quick: bool) -> list[common.Row]:
    """Compare accuracy and ``is_greedy`` with those of ``hf``; the last option counts as right."""
    models = {kind: common.load(kind, str(common.wide_vocabulary()), batch_size=size) for kind, size in SIZES}
    requests = instances(own_greedy(models["hf"], Words(models["hf"].tokenizer), 250 if quick else 2500))
    found = {kind: answer(model, requests) for kind, model in models.items()}
    unequal = sum(one[1] != other[1] for one, other in zip(found["lmsat"], found["hf"], strict=True))
    right = {
        kind: sum(max(range(4), key=lambda at: each[first + at][0]) == 3 for first in range(0, len(each), 4))
        for kind, each in found.items()
    }
    greedy = sum(hit for _, hit in found["hf"]) / len(requests)
    return [
        common.Row(f"{len(requests)} requests: share that is greedy", "", "", greedy, at_least=0.3),
        common.Row("  unequal is_greedy", "", "", unequal, at_most=0),
        common.Row(
            "  right answers", f"{right['lmsat']}", f"{right['hf']}", abs(right["lmsat"] - right["hf"]), at_most=0
        ),
    ]


def half_row(quick: bool) -> common.Row:
    """Return the mean differences from a head in float64 on the same bfloat16 states: one request at a time."""
    folder = str(common.wide_vocabulary())
    models = {
        "lmsat": common.load("lmsat", folder, batch_size=1, dtype="bfloat16", shared_prefixes=False),
        "hf": common.load("hf", folder, batch_size=1, dtype="bfloat16"),
    }
    requests = instances(clozes(Words(models["hf"].tokenizer), 32 if quick else 256))
    model, exact = models["hf"].model, []
    with torch.no_grad():
        for request in requests:
            context, continuation = models["hf"]._encode_pair(*request.args)
            states_TD = model.base_model(torch.tensor([[*context, *continuation][:-1]])).last_hidden_state[0]
            logits_TV = states_TD[-len(continuation) :].double() @ model.get_output_embeddings().weight.double().T
            exact.append(
                float(-torch.nn.functional.cross_entropy(logits_TV, torch.tensor(continuation), reduction="sum"))
            )
    apart = {
        kind: sum(abs(value - there) for (value, _), there in zip(answer(each, requests), exact, strict=True))
        / len(exact)
        for kind, each in models.items()
    }
    return common.Row(
        "bfloat16: nats from an exact head",
        *(f"{apart[kind]:.2g}" for kind in models),
        apart["lmsat"] / apart["hf"],
        at_most=0.1,
    )


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    tokenizer = transformers.AutoTokenizer.from_pretrained(common.smollm2())
    missed = 0
    for place, (name, make) in enumerate(SHAPES.items()):
        torch.manual_seed(0)
        model, rows = make().eval(), []
        models = {kind: common.load(kind, model, tokenizer=tokenizer, batch_size=size) for kind, size in SIZES}
        for work in WORKS:
            documents = work.documents // 4 if quick and work.make is not letters else work.documents
            requests = instances(work.make(Words(tokenizer), documents))
            rows += compare(work, models, requests, work.targets[place], quick)
        rows.append(memory_row(name))
        missed |= common.report(f"Requests for log-likelihoods, the shape of {name}", rows)
    rows = [*greedy_rows(quick), half_row(quick)]
    return missed | common.report("Requests for log-likelihoods, two layers under 50,304 rows of vocabulary", rows)


if __name__ == "__main__":
    raise SystemExit(main())
