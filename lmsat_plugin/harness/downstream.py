"""The class of downstream tasks: lm-eval's own prompts and scoring, data that can be had, continuous metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from lmsat_plugin.errors import LmsatError, first_sentence, sentence_for_lm_eval_command
from lmsat_plugin.files import kind_of, user_path
from lmsat_plugin.harness.choices import add_choice_metrics
from lmsat_plugin.harness.lm_eval_index import LM_EVAL_TASKS
from lmsat_plugin.harness.metadata_keys import FILES
from lmsat_plugin.settings import closest, unknown_setting

_ONE_SPLIT = {
    **dict.fromkeys(("dataset_name", "dataset_kwargs", "training_split", "validation_split")),
    **dict.fromkeys(("test_split", "fewshot_split"), "file"),
}
# The keys under which lm-eval lists a task; ours have their own names and groups.
_LISTING = ("task", "task_alias", "tag", "group", "metadata")


class DownstreamTask(ConfigurableTask):
    """``class: !function lmsat_plugin.harness.downstream.DownstreamTask`` in a task's YAML.

    Besides lm-eval's keys, which take precedence over those of ``base``, the YAML may have

    ``base``: a configuration of lm-eval, as a path below its folder of tasks.
    ``subjects``: a glob of lm-eval's configurations of one subject each. All subjects are one task then: a document
    with ``subject`` S gets the description of the configuration with ``dataset_name: S``, and few-shot examples of S.
    ``load``: a function that takes the place of `datasets.load_dataset`.
    ``prepare``: a function from the splits that were loaded to the splits that the task reads.
    ``file``: the key of ``--metadata`` that names a file of the user's, and ``reader``: a function from its path
    to its documents. The file is read instead of the dataset; without ``dataset_path`` it has to be given.

    Multiple-choice tasks measure `choices.choice_metrics` too. Raises `LmsatError` for data that cannot be loaded, and
    for a file that is not in its format.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        config = {key: value for key, value in config.items() if key != "class"}
        if (base := config.pop("base", None)) is not None:
            config = {**_base_config(base), **config}
        subjects = config.pop("subjects", None)
        self._descriptions = None if subjects is None else _descriptions(subjects)
        if self._descriptions is not None:
            config["description"] = "description"
        self._load = config.pop("load", datasets.load_dataset)
        self._prepare = config.pop("prepare", None)
        key, reader = config.pop("file", None), config.pop("reader", None)
        self._rows: list[dict[str, Any]] | None = None
        if key is not None and (path := file_of(key, config.get("metadata") or {})) is not None:
            self._rows = reader(path)
            config |= {"dataset_path": str(path), **_ONE_SPLIT}
        elif key is not None and config.get("dataset_path") is None:
            raise LmsatError(
                f"{config['task']} has no data on the Hub: give its file with --metadata {key}=FILE, or run "
                "lmsat-emergence-hub, which leaves out the tasks that need one"
            )
        super().__init__(config=config)
        if self._descriptions is not None:
            self._shots: dict[str, list[dict[str, Any]]] = {}
            for doc in self.fewshot_docs():
                self._shots.setdefault(doc["subject"], []).append(doc)
        add_choice_metrics(self)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Load the data, and check that what the task reads of them is there."""
        if self._rows is not None:
            self.dataset = datasets.DatasetDict({"file": datasets.Dataset.from_list(self._rows)})
            return
        config = self.config
        try:
            loaded = self._load(path=config.dataset_path, name=config.dataset_name, **(dataset_kwargs or {}))
            splits = loaded if self._prepare is None else self._prepare(loaded)
        except LmsatError:
            raise
        except Exception as error:
            raise LmsatError(
                f"the data of {self._data} cannot be loaded ({first_sentence(error)}): "
                "check the network or the cache of `datasets`, or leave the task out"
            ) from error
        wanted = {config.training_split, config.validation_split, config.test_split, config.fewshot_split}
        wanted.discard(None)
        if missing := wanted - splits.keys():
            raise self._changed(f"no split '{min(missing)}', only {', '.join(splits)}")
        self.dataset = datasets.DatasetDict({split: self._described(splits[split]) for split in sorted(wanted)})

    def _described(self, docs: datasets.Dataset) -> datasets.Dataset:
        """Give each document the description of its subject."""
        if self._descriptions is None:
            return docs
        if unknown := set(docs["subject"]) - self._descriptions.keys():
            raise self._changed(f"a subject '{min(unknown)}', which lm-eval has no task of")
        return docs.add_column("description", [self._descriptions[subject] for subject in docs["subject"]])

    @property
    def _data(self) -> str:
        name = f" ({self.config.dataset_name})" if self.config.dataset_name else ""
        return f"{self.config.task}, {self.config.dataset_path}{name},"

    def _changed(self, what: str) -> LmsatError:
        return LmsatError(
            f"the data of {self._data} have {what}: they are of another version than the task; leave it out"
        )

    def fewshot_context(self, doc: dict[str, Any], num_fewshot: int, **options: Any) -> Any:
        """Build the prompt, with examples of the document's subject where there are subjects."""
        if self._descriptions is not None:
            self.sampler.replace_df(self._shots.get(doc["subject"], []))
        return super().fewshot_context(doc, num_fewshot, **options)


def file_of(key: str, metadata: Mapping[str, Any]) -> Path | None:
    """Return the file that the metadata names under a key of `FILES`; None if they do not.

    Raises `LmsatError` for a file that is not there, and for a likely misspelling of the key.
    """
    if key not in metadata:
        for other in metadata:
            if closest(other, [key]):
                raise unknown_setting(other, FILES)
        return None
    path = user_path(str(metadata[key]))
    if kind_of(path) != "file":
        raise LmsatError(f"{key}={path} is no file: correct its name")
    return path


def identity_of(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a task's results depend on besides its own YAML: the version of its base, the user's file.

    ``config`` is the YAML with its functions unresolved.
    """
    identity: dict[str, Any] = {}
    if not str(config.get("class")).endswith(f".{DownstreamTask.__name__}"):
        return identity
    if "base" in config:
        base = load_yaml(_configuration(config["base"]), resolve_func=False)
        identity["base_version"] = (base.get("metadata") or {}).get("version")
    if "file" in config and (path := file_of(config["file"], metadata)) is not None:
        identity["file_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return identity


def _configuration(base: str) -> Path:
    path = LM_EVAL_TASKS / base
    if not path.is_file():
        raise LmsatError(f"this lm-eval has no task configuration {base}: install lm_eval 0.4.13")
    return path


def _base_config(base: str) -> dict[str, Any]:
    config = load_yaml(_configuration(base), resolve_func=True)
    return {key: value for key, value in config.items() if key not in _LISTING}


def _descriptions(subjects: str) -> dict[str, str]:
    """Return the description of each subject of lm-eval's configurations that a glob matches."""
    configs = [load_yaml(path, resolve_func=False) for path in sorted(LM_EVAL_TASKS.glob(subjects))]
    if not configs:
        raise LmsatError(f"this lm-eval has no task configurations {subjects}: install lm_eval 0.4.13")
    return {config["dataset_name"]: config["description"] for config in configs}


sentence_for_lm_eval_command()
