"""Downstream tasks: every configuration on small data of the real datasets' schema; nothing is downloaded."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import datasets
import lm_eval
import pytest
import yaml
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from places import ROOT

from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness import releases
from lmsat_plugin.harness.choices import HIGHER_IS_BETTER
from lmsat_plugin.harness.downstream import LM_EVAL_TASKS, DownstreamTask
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.harness.probe_requests import check_metadata
from lmsat_plugin.harness.shared_tasks import SharedTasks, TaskError
from lmsat_plugin.sweeps.config import SweepConfig
from lmsat_plugin.sweeps.plan import Plan

PYTHIA = [
    *("lmsat-lambada", "lmsat-piqa", "lmsat-winogrande-pythia", "lmsat-arc-easy", "lmsat-arc-challenge"),
    *("lmsat-sciq", "lmsat-logiqa", "lmsat-wsc", "lmsat-wikitext", "lmsat-storycloze"),
]
HUB = [
    *("lmsat-triviaqa", "lmsat-hellaswag", "lmsat-race", "lmsat-winogrande", "lmsat-mmlu", "lmsat-gsm8k"),
    *("lmsat-cluewsc", "lmsat-c3", "lmsat-ceval", "lmsat-gsm8k-zh"),
]
SUBJECTS = {"anatomy": "Which bone is part", "astronomy": "Which star is number"}


def splits(**rows: list[dict]) -> DatasetDict:
    return DatasetDict({name: Dataset.from_list(docs) for name, docs in rows.items()})


def story(right: int) -> dict:
    sentences = {f"input_sentence_{i}": f"Sentence {i}." for i in range(1, 5)}
    quizzes = {"sentence_quiz1": "They went home.", "sentence_quiz2": "The moon fell."}
    return {"story_id": "a", **sentences, **quizzes, "answer_right_ending": right}


def trivia(question: str, *aliases: str) -> dict:
    answer = {
        "aliases": list(aliases),
        "normalized_aliases": [a.lower() for a in aliases],
        "value": aliases[0],
    }
    return {"question": question, "question_id": "q", "answer": answer}


def exam(subject: str, split: str, count: int) -> list[dict]:
    return [
        {
            "question": f"{SUBJECTS[subject]} {i} of {split}?",
            "subject": subject,
            "choices": [f"{subject} {letter}{i}" for letter in "wxyz"],
            "answer": i % 4,
        }
        for i in range(count)
    ]


def antecedent(text: str, span1: str, pronoun: str, label: int) -> dict:
    places = {"span1_index": text.index(span1), "span2_index": text.rindex(pronoun)}
    return {
        "idx": 0,
        "text": text,
        "target": {"span1_text": span1, "span2_text": pronoun, **places},
        "label": label,
    }


def cluewsc() -> DatasetDict:
    """Its label 0 is "true"."""
    places = {"span1_index": Value("int32"), "span2_index": Value("int32")}
    target = {"span1_text": Value("string"), "span2_text": Value("string"), **places}
    labels = ClassLabel(names=["true", "false"])
    features = {"idx": Value("int32"), "text": Value("string"), "target": target, "label": labels}
    phone = "床上枕头旁边的手机响了，现在它又响了。"
    train = [
        antecedent(phone, "床", "它", 1),
        antecedent(phone, "枕头", "它", 1),
        antecedent(phone, "手机", "它", 0),
        antecedent("小明走了，他累了。", "小明", "他", 0),
    ]
    validation = [
        antecedent("老师看见学生，他笑了。", "老师", "他", 0),
        antecedent("老师看见学生，他笑了。", "学生", "他", 1),
    ]
    rows = {"train": train, "validation": validation, "test": train[:1]}
    return DatasetDict({k: Dataset.from_list(v, features=Features(features)) for k, v in rows.items()})


def hub() -> dict[tuple[str, str | None], DatasetDict]:
    """Return small data with the fields, the splits and the kinds of values of the datasets on the Hub."""
    wino = {
        "sentence": "The case is too small for the ball as the _ is big.",
        "option1": "ball",
        "option2": "case",
    }
    arc = [
        {"question": "How many?", "choices": {"text": ["one", "two", "ten"], "label": ["A", "B", "C"]}},
        {"question": "Which?", "choices": {"text": list("vwxyz"), "label": ["1", "2", "3", "4", "5"]}},
        {"question": "What?", "choices": {"text": list("abcd"), "label": list("ABCD")}},
    ]
    arc = [{**row, "id": "x", "answerKey": key} for row, key in zip(arc, "C5A", strict=True)]
    sciq = {f"distractor{i}": f"wrong {i}" for i in range(1, 4)}
    sciq = {"question": "What boils?", "correct_answer": "water", "support": " Water boils.", **sciq}
    piqa = {"goal": "To cut bread", "sol1": "use a spoon.", "sol2": "use a knife.", "label": 1}
    swag = {
        "activity_label": "Baking",
        "ctx_a": "A man mixes.",
        "ctx_b": "he",
        "ctx": "",
        "ind": 0,
        "label": "2",
    }
    swag |= {"endings": ["sings.", "runs [title] away.", "bakes.", "sleeps."], "split": "val"}
    wsc = {"text": "Mark told Pete that he won .", "span1_index": 0, "span2_index": 4, "span1_text": "Mark"}
    wsc |= {"span2_text": "he", "idx": 0, "label": 1}
    race = {
        "article": "Tom has a dog.",
        "question": "What has Tom?",
        "options": ["a cat", "a dog", "no", "all"],
    }
    race = [
        {**race, "example_id": f"{i}.txt", "answer": "B", "article": f"Tom {i} has a dog."} for i in range(5)
    ]
    c3 = {
        "id": 0,
        "context": ["男：你好。", "女：再见。"],
        "choice": ["你好", "再见", "谢谢"],
        "answer": "再见",
    }
    zh = [
        {
            **{"question": "q", "answer": "a", "split": "train", "answer_only": str(i)},
            **{"question_zh": f"训练题{i}？", "answer_zh": f"先算{i}。\n#### {i}"},
        }
        for i in range(9)
    ]
    zh.append({**zh[0], "split": "test", "question_zh": "五加六？", "answer_only": "11", "answer_zh": ""})
    mmlu = {
        "test": exam("anatomy", "test", 3) + exam("astronomy", "test", 2),
        "dev": exam("astronomy", "dev", 5) + exam("anatomy", "dev", 5),
        "auxiliary_train": [{**row, "subject": ""} for row in exam("anatomy", "other", 2)],
    }
    train = [trivia(f"Who is number {i}", f"Name {i}") for i in range(8)]
    problem = {"question": "Six and five?", "answer": "6 + 5 = <<6+5=11>>11\n#### 11"}
    third = {f"question {i}": i for i in range(6)}
    return {
        ("EleutherAI/lambada_openai", "default"): splits(test=[{"text": "She opened the door to the cat"}]),
        ("baber/piqa", None): splits(train=[piqa], validation=[piqa], test=[piqa]),
        ("allenai/winogrande", "winogrande_xl"): splits(
            train=[{**wino, "answer": "2"}],
            validation=[{**wino, "answer": "1"}],
            test=[{**wino, "answer": ""}],
        ),
        ("allenai/ai2_arc", "ARC-Easy"): splits(train=arc, validation=arc, test=arc),
        ("allenai/ai2_arc", "ARC-Challenge"): splits(train=arc, validation=arc, test=arc[1:]),
        ("allenai/sciq", None): splits(train=[sciq], validation=[sciq], test=[sciq]),
        ("coref-data/superglue_wsc_raw", "wsc.fixed"): splits(train=[wsc], validation=[wsc], test=[wsc]),
        ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1"): splits(
            train=[{"page": "x"}], validation=[{"page": "x"}], test=[{"page": " = Cats = \n Cats sleep . "}]
        ),
        ("MoE-UNC/story_cloze", None): splits(validation=[story(2)], test=[story(1)]),
        ("Rowan/hellaswag", None): splits(train=[swag], validation=[swag], test=[{**swag, "label": ""}]),
        ("mandarjoshi/trivia_qa", "unfiltered.nocontext"): splits(
            train=train, validation=[trivia("Who wrote Emma", "Jane Austen", "Austen")], test=train[:1]
        ),
        ("ehovy/race", "all"): splits(train=race, validation=race[:1], test=race[:2]),
        ("cais/mmlu", "all"): splits(**mmlu),
        ("openai/gsm8k", "main"): splits(train=[problem], test=[problem]),
        ("clue/clue", "cluewsc2020"): cluewsc(),
        ("clue/clue", "c3"): splits(
            train=[{**c3, "question": question, "choice": ["再见", str(i)]} for question, i in third.items()],
            validation=[{**c3, "question": "女的说什么？"}],
            test=[{**c3, "question": "?", "answer": ""}],
        ),
        ("meta-math/GSM8K_zh", None): splits(train=zh),
    }


LOGIQA_URL = "https://raw.githubusercontent.com/lgw863/LogiQA-dataset/master"
LOGIQA = """
b
All A are B.Some B are C.
Which holds?
A.All A are C.
B.None
C.Some
D.Yes

d
Text
Why?
A.1
B.2
C.3
D.4
"""
KBQA = """<question id={0}>	《书{0}》的作者是谁？
<triple id={0}>	书{0} ||| 作者 ||| 作者{0}
<answer id={0}>	作者{0}
==================================================
"""
CLOZET = {
    "story": "猫请鸟来。<mask>猫关上了门。",
    "plot0": "没有鸟来。",
    "plot1": "有些鸟来了。",
    "label": "1",
}


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Serve `hub`, LogiQA's text and C-Eval's archive in place of the network; return what was asked for."""
    asked: list[tuple[str, str | None]] = []
    data = hub()

    def load_dataset(path, name=None):
        asked.append((path, name))
        return data[path, name]

    def download(manager, urls):
        assert not manager.download_config.use_etag
        asked.append((urls["test"].removesuffix("/Test.txt"), None))
        assert [url.rsplit("/", 1)[1] for url in urls.values()] == ["Train.txt", "Eval.txt", "Test.txt"]
        assert list(urls) == ["train", "validation", "test"]
        (tmp_path / "logiqa.txt").write_text(LOGIQA, "utf-8")
        return dict.fromkeys(urls, str(tmp_path / "logiqa.txt"))

    def hf_hub_download(path, name, repo_type):
        asked.append((path, name))
        assert repo_type == "dataset"
        return write_ceval(tmp_path / "ceval.zip")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.DownloadManager, "download", download)
    monkeypatch.setattr(releases, "hf_hub_download", hf_hub_download)
    return asked


def ceval_rows(subject: str, split: str, count: int) -> list[dict]:
    options = {letter: f"{subject}{letter}" for letter in "ABCD"}
    return [
        {"id": i, "question": f"{split}{i}，{subject}？", **options, "answer": "ABCD"[i % 4]}
        for i in range(count)
    ]


def write_ceval(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for subject in ("law", "accountant"):
            for split, count in (("dev", 5), ("val", 2), ("test", 1)):
                with archive.open(f"{split}/{subject}_{split}.csv", "w") as raw:
                    rows = ceval_rows(subject, split, count)
                    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
                    raw.write("\n".join(lines).encode())
    return path


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """Return the metadata that names the files of the tasks that have any."""
    (tmp_path / "kbqa.txt").write_text("".join(KBQA.format(i) for i in range(1, 8)), "utf-8")
    (tmp_path / "clozet.jsonl").write_text(f"{json.dumps(CLOZET)}\n\n{json.dumps({**CLOZET, 'label': 0})}\n")
    with (tmp_path / "stories.csv").open("w", newline="", encoding="utf-8-sig") as file:
        names = ["InputStoryid", *(f"InputSentence{i}" for i in range(1, 5))]
        names += ["RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2", "AnswerRightEnding"]
        csv.writer(file).writerows([names, ["a", "One, two.", "B.", "C.", "D.", "Good.", "Bad.", 2]])
    paths = {"nlpcc_kbqa": "kbqa.txt", "clozet": "clozet.jsonl", "storycloze": "stories.csv"}
    return {key: str(tmp_path / name) for key, name in paths.items()}


def manager(**metadata) -> TaskManager:
    return TaskManager(include_defaults=False, include_path=str(ROOT / "tasks"), metadata=metadata)


def load(name: str, **metadata) -> ConfigurableTask:
    task = manager(**metadata).load([name])["tasks"][name]
    task.set_fewshot_seed(1234)
    task.build_all_requests()
    return task


def arguments(task, doc_id: int = 0) -> list[tuple]:
    return [instance.args for instance in task.instances if instance.doc_id == doc_id]


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
    "lmsat-piqa": (
        ("baber/piqa", None),
        1,
        "Question: To cut bread\nAnswer:",
        [" use a spoon.", " use a knife."],
        1,
    ),
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


def test_cluewsc_pairs_right_and_wrong(asked):
    """A pronoun with a right antecedent alone is left out; of several wrong ones the first in the data is taken."""
    docs = load("lmsat-cluewsc").eval_docs
    assert [(doc["option1"], doc["option2"], doc["answer"]) for doc in docs] == [
        ("床", "手机", "2"),
        ("老师", "学生", "1"),
    ]
    assert docs[0]["sentence"] == "床上枕头旁边的手机响了，现在_又响了。"


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
    results = lm_eval.simple_evaluate(
        model=lm, tasks=[name], task_manager=manager(**metadata), bootstrap_iters=0, limit=1
    )
    return {key: value for key, value in results["results"][name].items() if "stderr" not in key}


@pytest.mark.parametrize(
    ("name", "prompt", "right", "wrong", "metric"),
    [
        (
            "lmsat-triviaqa",
            "Question: Who wrote Emma?\nAnswer:",
            " austen",
            " Jane",
            "exact_match,remove_whitespace",
        ),
        (
            "lmsat-gsm8k",
            "Q: Six and five?\nA:",
            " The answer is 11.",
            " The answer is 12.",
            "exact_match,strict-match",
        ),
        (
            "lmsat-gsm8k-zh",
            "问题：五加六？\n答案：",
            "相加。\n#### 11\n",
            "#### 1",
            "exact_match,strict-match",
        ),
        ("lmsat-gsm8k-zh", "问题：五加六？\n答案：", "等于 11", "等于 12", "exact_match,flexible-extract"),
        (
            "lmsat-nlpcc-kbqa",
            "问题：《书1》的作者是谁？\n答案：",
            "作者1",
            "作者2",
            "exact_match,remove_whitespace",
        ),
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
        (config.get("task") if isinstance(config.get("task"), str) else config["group"])[5] == "-"
        for config in ours
    )
    assert len(ours) == 25


def test_a_file_takes_the_place_of_the_dataset(asked, files):
    task = load("lmsat-storycloze", storycloze=files["storycloze"])
    assert asked == []
    assert arguments(task) == [("One, two. B. C. D.", " Good."), ("One, two. B. C. D.", " Bad.")]
    assert task.process_results(task.eval_docs[0], [(-2.0, False), (-1.0, False)])["acc"] == 1
    assert task.config.dataset_path == files["storycloze"]


def refusal(name: str, **metadata) -> str:
    with pytest.raises(LmsatError) as raised:
        manager(**metadata).load([name])
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_files_that_are_missing_or_wrong_are_named(asked, files, tmp_path):
    assert refusal("lmsat-emergence") == (
        "lmsat-nlpcc-kbqa has no data on the Hub: give its file with --metadata nlpcc_kbqa=FILE, or run "
        "lmsat-emergence-hub, which leaves out the tasks that need one"
    )
    assert "--metadata clozet=FILE" in refusal("lmsat-emergence", nlpcc_kbqa=files["nlpcc_kbqa"])
    assert refusal("lmsat-clozet", clozet="nowhere") == "clozet=nowhere is no file: correct its name"
    assert refusal("lmsat-storycloze", storyclose="x") == (
        "unknown setting 'storyclose': did you mean storycloze?"
    )
    bad = tmp_path / "bad"
    for text, key, words in [
        ("", "clozet", "has no JSON lines"),
        ('{"story": "no gap"}', "clozet", "line 1: no JSON with story"),
        (json.dumps({**CLOZET, "label": "2"}), "clozet", "line 1"),
        ("[]", "clozet", "line 1"),
        ("hello", "nlpcc_kbqa", "has no line that begins with <question id=1>"),
        ("<question id=7>\tWho?\n", "nlpcc_kbqa", "has no <answer id=7>"),
        ("InputStoryid,InputSentence1\na,b\n", "storycloze", "story 1: no InputSentence2"),
    ]:
        bad.write_text(text)
        assert words in refusal(f"lmsat-{key.replace('_', '-')}", **{key: str(bad)})
    bad.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8 text" in refusal("lmsat-clozet", clozet=str(bad))
    assert asked == []
    check_metadata({"clozet": "x", "nlpcc_kbqa": "y", "storycloze": "z"}, ())


def test_data_that_cannot_be_had_are_named(asked, monkeypatch):
    def offline(path, name=None, **options):
        raise ConnectionError("Couldn't reach the Hub.\nMore of this")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    assert refusal("lmsat-race") == (
        "the data of lmsat-race, ehovy/race (all), cannot be loaded (Couldn't reach the Hub): "
        "check the network or the cache of `datasets`, or leave the task out"
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda path, name=None: splits(train=[{"a": 1}]))
    assert "have no split 'validation', only train" in refusal("lmsat-hellaswag")
    rows = exam("anatomy", "test", 2)
    changed = splits(dev=rows, test=[rows[0], {**rows[1], "subject": "alchemy"}])
    monkeypatch.setattr(datasets, "load_dataset", lambda path, name=None: changed)
    assert "have a subject 'alchemy'" in refusal("lmsat-mmlu")
    monkeypatch.setattr(releases, "_text_of", lambda path: LOGIQA.replace("D.Yes\n", ""))
    assert "'Which holds?' has 3 options, not 4" in refusal("lmsat-logiqa")
    with pytest.raises(LmsatError, match=r"no task configuration gone\.yaml: install lm_eval"):
        DownstreamTask(config={"task": "x", "base": "gone.yaml"})


def test_what_identifies_a_result(files, tmp_path, checkpoint):
    """A file by its content, whatever its name, and only for the task that reads it."""

    def identities(**metadata) -> dict[str, dict]:
        tasks = ["lmsat-storycloze", "lmsat-clozet", "lmsat-arc-easy", "lmsat-pythia"]
        config = SweepConfig(
            models=[str(checkpoint("gpt2"))], tasks=tasks, output=tmp_path / "out", metadata=metadata
        )
        return {unit.task: part for _, unit, part in Plan(config)._parts}

    without, given = identities(), identities(**files)
    assert {task for task in given if given[task] != without[task]} == {
        *("lmsat-storycloze", "lmsat-clozet", "lmsat-pythia")
    }
    copy = tmp_path / "copy.csv"
    copy.write_bytes(Path(files["storycloze"]).read_bytes())
    assert identities(**{**files, "storycloze": str(copy)}) == given
    copy.write_text(copy.read_text("utf-8-sig").replace("Good", "Fine"))
    assert identities(**{**files, "storycloze": str(copy)}) != given
    assert without["lmsat-arc-easy"]["version"]["base_version"] == 1.0


def test_plain_lm_eval_and_sweeps_agree(asked, files, checkpoint, tmp_path):
    """The same numbers by both roads, once each, with options of 3 to 5 and with a user's file."""
    model = str(checkpoint("gpt2"))
    names = ["lmsat-arc-easy", "lmsat-clozet"]
    alone = lm_eval.simple_evaluate(
        model=SaturationLM(model, device="cpu", batch_size=4),
        tasks=names,
        task_manager=manager(clozet=files["clozet"]),
        bootstrap_iters=100,
    )
    config = tmp_path / "sweep.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                **{"models": [model], "tasks": names, "metadata": {"clozet": files["clozet"]}},
                **{"output": str(tmp_path / "out"), "device": "cpu", "batch_size": 4},
            }
        )
    )
    assert main(["sweep", str(config)]) == 0
    [path] = (tmp_path / "out").rglob("results_*.json")
    swept = json.loads(path.read_text())
    for name in names:
        row = alone["results"][name]
        assert {f"{metric},none" for metric in HIGHER_IS_BETTER} <= row.keys()
        for key, value in row.items():
            if isinstance(value, float):
                assert swept["results"][name][key] == pytest.approx(value, rel=1e-6), (name, key)
        assert swept["higher_is_better"][name] == alone["higher_is_better"][name]
    assert swept["n-samples"]["lmsat-arc-easy"]["effective"] == 3


def test_a_sweep_without_the_file_says_so(asked, tmp_path):
    shared = SharedTasks(["lmsat-emergence"], [], {})
    with pytest.raises(TaskError, match="--metadata nlpcc_kbqa=FILE"):
        shared.load(["lmsat-emergence"])
