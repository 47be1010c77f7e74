"""Every downstream configuration on small data of the real datasets' schema; nothing is downloaded."""

from __future__ import annotations

import datasets
import pytest
from downstream_data import HIGHER_IS_BETTER, LOGIQA_URL, arguments, ceval_rows, exam, load, manager, splits
from evaluation import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml
from places import ROOT

from lmsat_plugin.harness.lm_eval_index import LM_EVAL_TASKS

PYTHIA = [
    *("lmsat-lambada", "lmsat-piqa", "lmsat-winogrande-pythia", "lmsat-arc-easy", "lmsat-arc-challenge"),
    *("lmsat-sciq", "lmsat-logiqa", "lmsat-wsc", "lmsat-wikitext", "lmsat-storycloze"),
]

HUB = [
    *("lmsat-triviaqa", "lmsat-hellaswag", "lmsat-race", "lmsat-winogrande", "lmsat-mmlu", "lmsat-gsm8k"),
    *("lmsat-cluewsc", "lmsat-c3", "lmsat-ceval", "lmsat-gsm8k-zh"),
]

ARC = "Question: How many?\nAnswer:"

WINO = "The case is too small for the ball as the "

C3 = "男：你好。\n女：再见。\n问题：女的说什么？\n答案："

MMLU = "Which bone is part 0 of test?\nA. anatomy w0\nB. anatomy x0\nC. anatomy y0\nD. anatomy z0\nAnswer:"

LOGI = (
    "Passage: All A are B. Some B are C.\nQuestion: Which holds?\nChoices:\n"
    "A. All A are C.\nB. None\nC. Some\nD. Yes\nAnswer:"
)

WSC = (
    "Passage: Mark told Pete that *he* won.\n"
    'Question: In the passage above, does the pronoun "*he*" refer to "*Mark*"?\nAnswer:'
)

STORY = "Sentence 1. Sentence 2. Sentence 3. Sentence 4."

LETTERS = [" A", " B", " C", " D"]

# The task, what it asks the Hub for, its documents, the first one's prompt and options, and the right one.
CHOICES = {
    "lmsat-piqa": (("baber/piqa", None), 1, "Question: To cut bread\nAnswer:", [" use a spoon.", " use a knife."], 1),
    "lmsat-winogrande": (("allenai/winogrande", "winogrande_xl"), 1, WINO, None, 0),
    "lmsat-winogrande-pythia": (("allenai/winogrande", "winogrande_xl"), 1, WINO, None, 0),
    "lmsat-arc-easy": (("allenai/ai2_arc", "ARC-Easy"), 3, ARC, [" one", " two", " ten"], 2),
    "lmsat-arc-challenge": (
        ("allenai/ai2_arc", "ARC-Challenge"),
        *(2, "Question: Which?\nAnswer:", [" v", " w", " x", " y", " z"], 4),
    ),
    "lmsat-sciq": (
        ("allenai/sciq", None),
        *(1, "Water boils.\nQuestion: What boils?\nAnswer:"),
        *([" wrong 1", " wrong 2", " wrong 3", " water"], 3),
    ),
    "lmsat-logiqa": ((LOGIQA_URL, None), 2, LOGI, [" All A are C.", " None", " Some", " Yes"], 1),
    "lmsat-wsc": (("coref-data/superglue_wsc_raw", "wsc.fixed"), 1, WSC, [" no", " yes"], 1),
    "lmsat-storycloze": (("MoE-UNC/story_cloze", None), 1, STORY, [" They went home.", " The moon fell."], 0),
    "lmsat-hellaswag": (
        ("Rowan/hellaswag", None),
        *(1, "Baking: A man mixes. He", [" sings.", " runs. away.", " bakes.", " sleeps."], 2),
    ),
    "lmsat-race": (
        ("ehovy/race", "all"),
        *(2, "Article: Tom 0 has a dog.\n\nWhat has Tom?", [" a cat", " a dog", " no", " all"], 1),
    ),
    "lmsat-mmlu": (("cais/mmlu", "all"), 5, MMLU, LETTERS, 0),
    "lmsat-cluewsc": (("clue/clue", "cluewsc2020"), 2, "床上枕头旁边的手机响了，现在", None, 1),
    "lmsat-c3": (("clue/clue", "c3"), 1, C3, ["你好", "再见", "谢谢"], 1),
    "lmsat-ceval": (
        ("ceval/ceval-exam", "ceval-exam.zip"),
        4,
        "val0，accountant？\nA. accountantA\nB. accountantB\nC. accountantC\nD. accountantD\n答案：",
        LETTERS,
        0,
    ),
    "lmsat-clozet": (None, 2, "猫请鸟来。", ["没有鸟来。猫关上了门。", "有些鸟来了。猫关上了门。"], 1),
}

# Where the options stand in the context, there is one continuation.
CONTEXTS = {
    "lmsat-winogrande": (["ball", "case"], " is big."),
    "lmsat-winogrande-pythia": (["ball", "case"], " is big."),
    "lmsat-cluewsc": (["床", "手机"], "又响了。"),
}


@pytest.mark.parametrize("name", CHOICES)
def test_multiple_choice(name, asked, files):
    source, documents, prompt, options, right = CHOICES[name]
    task = load(name, clozet=files["clozet"])
    assert asked == ([] if source is None else [source])
    assert len(task.eval_docs) == documents
    requests = arguments(task)
    if options is None:
        words, continuation = CONTEXTS[name]
        assert [context for context, _ in requests] == [prompt + word for word in words]
        assert {tail for _, tail in requests} == {continuation}
    else:
        assert all(context.endswith(prompt) for context, _ in requests)
        assert [continuation for _, continuation in requests] == options
    if not task.config.num_fewshot and options is not None:
        assert requests[0][0] == prompt
    doc = task.eval_docs[0]
    for choice in range(len(requests)):
        scores = task.process_results(doc, [(-20.0 * (i != choice), False) for i in range(len(requests))])
        assert scores["acc"] == (choice == right)
        assert scores["correct_choice_prob"] == pytest.approx(float(choice == right), abs=1e-8)
        assert scores["logprob_margin"] == (20 if choice == right else -20)
    assert HIGHER_IS_BETTER.items() <= task.higher_is_better().items()


# Shots, and what the few-shot examples alone have: the split that they are from.
SHOTS = {
    "lmsat-race": (3, "What has Tom? a dog\n\n", "Article: Tom "),
    "lmsat-mmlu": (5, "of dev?", "Which bone"),
    "lmsat-c3": (5, "问题：question ", "\n答案：再见\n\n"),
    "lmsat-ceval": (5, "dev", "，accountant？"),
    "lmsat-triviaqa": (5, "Who is number ", "?\nAnswer: Name "),
    "lmsat-gsm8k": (8, "The answer is ", "Q: "),
    "lmsat-gsm8k-zh": (8, "问题：训练题", "\n#### "),
    "lmsat-nlpcc-kbqa": (5, "》的作者是谁？\n答案：作者", "\n\n"),
}


@pytest.mark.parametrize("name", SHOTS)
def test_few_shots_are_of_their_split(name, asked, files):
    shots, one, other = SHOTS[name]
    task = load(name, **files)
    assert task.config.num_fewshot == shots
    context = arguments(task)[0][0]
    assert context.count(one) == shots
    assert shots <= context.count(other) <= shots + 1
    if name == "lmsat-nlpcc-kbqa":
        assert context.count("《书1》") == 1, "the question itself is none of its examples"


def test_zero_shot_by_default_and_any_number_on_demand(asked, files):
    zero = {*PYTHIA, *HUB, "lmsat-clozet"} - SHOTS.keys()
    loaded = manager(**files)
    assert not any(loaded.load([name])["tasks"][name].config.num_fewshot for name in sorted(zero))


@pytest.mark.parametrize(
    ("name", "base", "path", "subject"),
    [
        ("lmsat-mmlu", "mmlu/default/mmlu_anatomy.yaml", "cais/mmlu", "anatomy"),
        ("lmsat-mmlu", "mmlu/default/mmlu_astronomy.yaml", "cais/mmlu", "astronomy"),
        ("lmsat-ceval", "ceval/ceval-valid_law.yaml", "ceval/ceval-exam", "law"),
    ],
)
def test_subjects_have_lm_evals_prompts(name, base, path, subject, asked, monkeypatch):
    """One task over all subjects asks what lm-eval's task of each subject asks, few-shot examples included."""
    if path == "cais/mmlu":
        own = splits(test=exam(subject, "test", 3), dev=exam(subject, "dev", 5))
    else:
        own = splits(val=ceval_rows(subject, "val", 2), dev=ceval_rows(subject, "dev", 5))
    task = load(name)
    monkeypatch.setattr(datasets, "load_dataset", lambda path, name: own)
    config = load_yaml(LM_EVAL_TASKS / base)
    config.pop("tag", None)
    theirs = ConfigurableTask(config={**config, "num_fewshot": 5, "metadata": {}})
    theirs.set_fewshot_seed(1234)
    theirs.build_all_requests()
    ours = [i.args for i in task.instances if i.doc["subject"] == subject]
    expected = [i.args for i in theirs.instances]
    assert ours == expected[: len(ours)]
    assert len(ours) >= 8


class Scripted(LM):
    """A model that generates what it is told, in the order of the requests."""

    def __init__(self, *answers: str) -> None:
        super().__init__()
        self.answers = answers

    def generate_until(self, requests, disable_tqdm=False):
        self.until = [request.args[1]["until"] for request in requests]
        return list(self.answers)

    def loglikelihood(self, requests, disable_tqdm=False):
        return [(-1.0, True) for _ in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        self.texts = [request.args[0] for request in requests]
        return [-10.0 for _ in requests]


def scores(lm: LM, name: str, **metadata) -> dict:
    results = simple_evaluate(model=lm, tasks=[name], task_manager=manager(**metadata), bootstrap_iters=0, limit=1)
    return {key: value for key, value in results["results"][name].items() if "stderr" not in key}


@pytest.mark.parametrize(
    ("name", "prompt", "right", "wrong", "metric"),
    [
        ("lmsat-triviaqa", "Question: Who wrote Emma?\nAnswer:", " austen", " Jane", "exact_match,remove_whitespace"),
        ("lmsat-gsm8k", "Q: Six and five?\nA:", " The answer is 11.", " The answer is 12.", "exact_match,strict-match"),
        ("lmsat-gsm8k-zh", "问题：五加六？\n答案：", "相加。\n#### 11\n", "#### 1", "exact_match,strict-match"),
        ("lmsat-gsm8k-zh", "问题：五加六？\n答案：", "等于 11", "等于 12", "exact_match,flexible-extract"),
        ("lmsat-nlpcc-kbqa", "问题：《书1》的作者是谁？\n答案：", "作者1", "作者2", "exact_match,remove_whitespace"),
    ],
)
def test_exact_match(name, prompt, right, wrong, metric, asked, files):
    for answer, score in ((right, 1), (wrong, 0)):
        assert scores(Scripted(answer), name, nlpcc_kbqa=files["nlpcc_kbqa"])[metric] == score
    assert arguments(load(name, **files))[0][0].endswith(prompt)
    sources = {
        "lmsat-triviaqa": {("mandarjoshi/trivia_qa", "unfiltered.nocontext")},
        "lmsat-gsm8k": {("openai/gsm8k", "main")},
        "lmsat-gsm8k-zh": {("meta-math/GSM8K_zh", None)},
    }
    assert set(asked) == sources.get(name, set())


def test_lambada_and_wikitext(asked):
    assert arguments(load("lmsat-lambada")) == [("She opened the door to the", " cat")]
    assert scores(Scripted(), "lmsat-lambada")["acc,none"] == 1
    lm = Scripted()
    found = scores(lm, "lmsat-wikitext")
    assert lm.texts == [" = Cats =\nCats sleep. "]
    # Words are counted as the page has them: the empty ones at its ends too.
    assert found["word_perplexity,none"] == pytest.approx(2.718281828459045 ** (10 / 8))
    assert {path for path, _ in asked} == {"EleutherAI/lambada_openai", "EleutherAI/wikitext_document_level"}


def test_groups_have_their_members(asked, files):
    found = manager(**files).load(["lmsat-pythia"])
    assert list(found["tasks"]) == PYTHIA
    found = manager().load(["lmsat-emergence-hub"])
    assert list(found["tasks"]) == HUB
    found = manager(**files).load(["lmsat-emergence"])
    assert list(found["tasks"]) == ["lmsat-nlpcc-kbqa", "lmsat-clozet", *HUB]
    # Both groups in one call, as in a sweep; one without any file.
    assert len(manager(**files).load(["lmsat-pythia", "lmsat-emergence"])["tasks"]) == 22
    assert len(manager().load(["lmsat-pythia", "lmsat-emergence-hub"])["tasks"]) == 20


def test_names_are_none_of_the_probes():
    names = manager().match_tasks(["lmsat_*"])
    assert names
    assert not [name for name in names if "-" in name]
    ours = [load_yaml(path, resolve_func=False) for path in (ROOT / "tasks" / "downstream").glob("*.yaml")]
    assert all(
        (config.get("task") if isinstance(config.get("task"), str) else config["group"])[5] == "-" for config in ours
    )
    assert len(ours) == 25
