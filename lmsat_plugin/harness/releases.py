"""Load datasets in the formats of their releases, and the user's files of tasks, as the documents that tasks read."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, DownloadConfig, DownloadManager
from huggingface_hub import hf_hub_download

from lmsat_plugin.errors import LmsatError

Row = dict[str, Any]

_NLPCC = re.compile(r"<(question|triple|answer) id=(\d+)>\s*(.*)")


def load_logiqa(path: str, name: None) -> DatasetDict:
    """Read LogiQA's text files (Liu et al. 2020) from the web folder ``path``; they are kept in the cache.

    A document is a paragraph: label, context, question, and four options ``A.`` A space follows each full stop, as
    in the dataset that lm-eval's task was written for.
    """
    # Otherwise a file in the cache is looked up in the network all the same.
    manager = DownloadManager(download_config=DownloadConfig(use_etag=False))
    files = {"train": "Train.txt", "validation": "Eval.txt", "test": "Test.txt"}
    texts = manager.download({split: f"{path}/{file}" for split, file in files.items()})

    def spaced(text: str) -> str:
        return text.replace(".", ". ").strip()

    def row(paragraph: str) -> Row:
        label, context, question, *options = paragraph.splitlines()
        if len(options) != 4:
            raise LmsatError(f"'{question}' has {len(options)} options, not 4: the release has changed")
        return {
            "label": label.strip(),
            "context": spaced(context),
            "question": spaced(question),
            "options": [spaced(option[2:]) for option in options],
        }

    return DatasetDict(
        {
            split: Dataset.from_list([row(text) for text in _text_of(Path(file)).strip().split("\n\n")])
            for split, file in texts.items()
        }
    )


def race(splits: DatasetDict) -> DatasetDict:
    """Turn each question of RACE (Lai et al. 2017) into a document of lm-eval's form: an article with one problem."""

    def row(doc: Row) -> Row:
        problem = {key: doc[key] for key in ("question", "options", "answer")}
        return {"article": doc["article"], "problems": repr([problem])}

    return splits.map(row, remove_columns=["question", "options", "answer", "example_id"])


def cluewsc(splits: DatasetDict) -> DatasetDict:
    """Pair the right and the wrong antecedent of each pronoun of CLUEWSC2020 (Xu et al. 2020), as in WinoGrande.

    The dataset asks of one antecedent a row whether it is right. Of each pronoun the first right and the first
    wrong one are taken, in the order of the text; pronouns with only one kind, or not at their index, are left out.
    """
    pronouns: dict[tuple[str, int], list[Row]] = {}
    for name in ("train", "validation"):
        truth = splits[name].features["label"].names.index("true")
        for doc in splits[name]:
            target = doc["target"]
            key = (doc["text"], target["span2_index"])
            pronouns.setdefault(key, []).append({**target, "right": doc["label"] == truth})
    rows = []
    for (text, start), antecedents in pronouns.items():
        pronoun = antecedents[0]["span2_text"]
        right = next((antecedent for antecedent in antecedents if antecedent["right"]), None)
        wrong = next((antecedent for antecedent in antecedents if not antecedent["right"]), None)
        if right is None or wrong is None or "_" in text or not text.startswith(pronoun, start):
            continue
        options = sorted((right, wrong), key=lambda antecedent: antecedent["span1_index"])
        rows.append(
            {
                "sentence": text[:start] + "_" + text[start + len(pronoun) :],
                "option1": options[0]["span1_text"],
                "option2": options[1]["span1_text"],
                "answer": str(1 + options.index(right)),
            }
        )
    return DatasetDict({"train+validation": Dataset.from_list(rows)})


def gsm8k_zh(splits: DatasetDict) -> DatasetDict:
    """Split the one file of GSM8K_zh into train, with reasoning, and test, with the number alone."""
    rows: dict[str, list[Row]] = {"train": [], "test": []}
    for doc in splits["train"]:
        reasoning = (doc["answer_zh"] or "").split("####")[0].strip()
        answer = f"{reasoning}\n#### {doc['answer_only']}".strip()
        rows[doc["split"]].append({"question": doc["question_zh"], "answer": answer})
    return DatasetDict({name: Dataset.from_list(docs) for name, docs in rows.items()})


def load_ceval(path: str, name: str) -> DatasetDict:
    """Read C-Eval (Huang et al. 2023) from the archive ``name`` of the repository ``path``: all subjects together."""
    columns = ("question", "A", "B", "C", "D", "answer")
    rows: dict[str, list[Row]] = {"dev": [], "val": []}
    with zipfile.ZipFile(hf_hub_download(path, name, repo_type="dataset")) as archive:
        for member in sorted(archive.namelist()):
            match = re.fullmatch(r"(?:.*/)?(dev|val)/([a-z_]+)_\1\.csv", member)
            if match is None:
                continue
            text = archive.read(member).decode("utf-8-sig")
            for doc in csv.DictReader(io.StringIO(text, newline="")):
                rows[match[1]].append({"subject": match[2], **{key: doc[key] for key in columns}})
    return DatasetDict({split: Dataset.from_list(docs) for split, docs in rows.items()})


def read_nlpcc_kbqa(path: Path) -> list[Row]:
    """Read questions and answers of NLPCC 2016's KBQA task, whose lines begin ``<question id=1>``, ``<answer id=1>``.

    Raises `LmsatError` for a question without an answer, as in the test set without its answers, or no questions.
    """
    numbered: dict[str, Row] = {}
    for line in _text_of(path).splitlines():
        if match := _NLPCC.match(line.strip()):
            kind, number, text = match.groups()
            numbered.setdefault(number, {})[kind] = text.strip()
    rows = []
    for number, fields in numbered.items():
        if not fields.get("question") or not fields.get("answer"):
            lacking = "answer" if fields.get("question") else "question"
            raise LmsatError(f"{path} has no <{lacking} id={number}>: give the file with questions and answers")
        rows.append({"question": fields["question"], "answer": fields["answer"]})
    return _not_empty(rows, path, "line that begins with <question id=1>")


def read_clozet(path: Path) -> list[Row]:
    """Read LOT's ClozeT (Guan et al. 2022), JSON lines with ``story``, ``plot0``, ``plot1`` and ``label``.

    The context is what comes before ``<mask>``; an option is a plot in its place with the rest of the story.
    Raises `LmsatError` for a line of another form.
    """
    rows = []
    for number, line in enumerate(_text_of(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            doc = json.loads(line)
            before, after = doc["story"].split("<mask>")
            options = [doc[plot] + after for plot in ("plot0", "plot1")]
            label = ["0", "1"].index(str(doc["label"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise LmsatError(
                f"{path}, line {number}: no JSON with story, in which <mask> stands once, plot0, plot1 and label: "
                "give a file of LOT's ClozeT with labels"
            ) from None
        rows.append({"context": before, "options": options, "label": label})
    return _not_empty(rows, path, "JSON lines")


def read_storycloze(path: Path) -> list[Row]:
    """Read the Story Cloze Test (Mostafazadeh et al. 2016) as its CSV file, under lm-eval's names of the fields.

    Raises `LmsatError` for a file without the columns, such as the test set of 2018, which has no answers.
    """
    sentences = [f"InputSentence{i}" for i in range(1, 5)]
    quizzes = ["RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2"]
    rows = []
    for number, doc in enumerate(csv.DictReader(io.StringIO(_text_of(path), newline="")), start=1):
        if missing := [key for key in [*sentences, *quizzes, "AnswerRightEnding"] if not doc.get(key)]:
            raise LmsatError(
                f"{path}, story {number}: no {missing[0]}: give a CSV file of the Story Cloze Test with answers"
            )
        row: Row = {f"input_sentence_{i}": doc[key] for i, key in enumerate(sentences, start=1)}
        row |= {f"sentence_quiz{i}": doc[key] for i, key in enumerate(quizzes, start=1)}
        if doc["AnswerRightEnding"] not in ("1", "2"):
            raise LmsatError(
                f"{path}, story {number}: AnswerRightEnding is '{doc['AnswerRightEnding']}', not 1 or 2: correct it"
            )
        rows.append({**row, "answer_right_ending": int(doc["AnswerRightEnding"])})
    return _not_empty(rows, path, "stories")


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise LmsatError(f"{path} cannot be read ({reason}): give another file") from None


def _not_empty(rows: list[Row], path: Path, what: str) -> list[Row]:
    if not rows:
        raise LmsatError(f"{path} has no {what}: give a file of the original release")
    return rows
