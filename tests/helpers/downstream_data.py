"""Small data with the schema of each downstream task's dataset, and the tasks loaded on it."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from lm_eval.tasks import TaskManager
from places import ROOT

from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    from pathlib import Path

    from lm_eval.api.task import ConfigurableTask

HIGHER_IS_BETTER = {"correct_choice_prob": True, "brier_score": False, "logprob_margin": True}
SUBJECTS = {"anatomy": "Which bone is part", "astronomy": "Which star is number"}


def splits(**rows: list[dict]) -> DatasetDict:
    return DatasetDict({name: Dataset.from_list(docs) for name, docs in rows.items()})


def story(right: int) -> dict:
    sentences = {f"input_sentence_{i}": f"Sentence {i}." for i in range(1, 5)}
    quizzes = {"sentence_quiz1": "They went home.", "sentence_quiz2": "The moon fell."}
    return {"story_id": "a", **sentences, **quizzes, "answer_right_ending": right}


def trivia(question: str, *aliases: str) -> dict:
    answer = {"aliases": list(aliases), "normalized_aliases": [a.lower() for a in aliases], "value": aliases[0]}
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
    return {"idx": 0, "text": text, "target": {"span1_text": span1, "span2_text": pronoun, **places}, "label": label}


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
    wino = {"sentence": "The case is too small for the ball as the _ is big.", "option1": "ball", "option2": "case"}
    arc = [
        {"question": "How many?", "choices": {"text": ["one", "two", "ten"], "label": ["A", "B", "C"]}},
        {"question": "Which?", "choices": {"text": list("vwxyz"), "label": ["1", "2", "3", "4", "5"]}},
        {"question": "What?", "choices": {"text": list("abcd"), "label": list("ABCD")}},
    ]
    arc = [{**row, "id": "x", "answerKey": key} for row, key in zip(arc, "C5A", strict=True)]
    sciq = {f"distractor{i}": f"wrong {i}" for i in range(1, 4)}
    sciq = {"question": "What boils?", "correct_answer": "water", "support": " Water boils.", **sciq}
    piqa = {"goal": "To cut bread", "sol1": "use a spoon.", "sol2": "use a knife.", "label": 1}
    swag = {"activity_label": "Baking", "ctx_a": "A man mixes.", "ctx_b": "he", "ctx": "", "ind": 0, "label": "2"}
    swag |= {"endings": ["sings.", "runs [title] away.", "bakes.", "sleeps."], "split": "val"}
    wsc = {"text": "Mark told Pete that he won .", "span1_index": 0, "span2_index": 4, "span1_text": "Mark"}
    wsc |= {"span2_text": "he", "idx": 0, "label": 1}
    race = {"article": "Tom has a dog.", "question": "What has Tom?", "options": ["a cat", "a dog", "no", "all"]}
    race = [{**race, "example_id": f"{i}.txt", "answer": "B", "article": f"Tom {i} has a dog."} for i in range(5)]
    c3 = {"id": 0, "context": ["男：你好。", "女：再见。"], "choice": ["你好", "再见", "谢谢"], "answer": "再见"}
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
            train=[{**wino, "answer": "2"}], validation=[{**wino, "answer": "1"}], test=[{**wino, "answer": ""}]
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

CLOZET = {"story": "猫请鸟来。<mask>猫关上了门。", "plot0": "没有鸟来。", "plot1": "有些鸟来了。", "label": "1"}


def ceval_rows(subject: str, split: str, count: int) -> list[dict]:
    options = {letter: f"{subject}{letter}" for letter in "ABCD"}
    return [{"id": i, "question": f"{split}{i}，{subject}？", **options, "answer": "ABCD"[i % 4]} for i in range(count)]


def write_ceval(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for subject in ("law", "accountant"):
            for split, count in (("dev", 5), ("val", 2), ("test", 1)):
                with archive.open(f"{split}/{subject}_{split}.csv", "w") as raw:
                    rows = ceval_rows(subject, split, count)
                    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
                    raw.write("\n".join(lines).encode())
    return path


def manager(**metadata) -> TaskManager:
    return TaskManager(include_defaults=False, include_path=str(ROOT / "tasks"), metadata=metadata)


def load(name: str, **metadata) -> ConfigurableTask:
    task = manager(**metadata).load([name])["tasks"][name]
    task.set_fewshot_seed(1234)
    task.build_all_requests()
    return task


def arguments(task, doc_id: int = 0) -> list[tuple]:
    return [instance.args for instance in task.instances if instance.doc_id == doc_id]


def refusal(name: str, **metadata) -> str:
    """Return the sentence with which a task does not load."""
    with pytest.raises(LmsatError) as raised:
        manager(**metadata).load([name])
    message = str(raised.value)
    assert "\n" not in message
    return message
