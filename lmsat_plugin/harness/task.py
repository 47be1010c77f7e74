"""The class of the ``lmsat_*`` tasks: an lm-eval task that asks the model for a probe's measurement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import Task
from lm_eval.config.task import TaskConfig
from lm_eval.filters import build_filter_ensemble
from lm_eval.models.huggingface import HFLM

from lmsat_plugin.errors import LmsatError, sentence_for_lm_eval_command
from lmsat_plugin.harness.probe_requests import ProbeRequest, provenance_of, run_probe_requests
from lmsat_plugin.plugins import plugins
from lmsat_plugin.probe import CORPUS
from lmsat_plugin.settings import parse_own
from lmsat_plugin.text.corpora import CorpusSettings, load_corpus

REQUEST_TYPE = "lmsat_probe"


class ProbeTask(Task):
    """``class: !function lmsat_plugin.harness.task.ProbeTask`` with ``probe: NAME`` in a task's YAML.

    The task hands the whole corpus to the model as one request per process. lm-eval gives the requests of all
    tasks to the model in one call, which runs them in one forward pass.
    """

    OUTPUT_TYPE = REQUEST_TYPE

    def __init__(self, config: dict[str, Any]) -> None:
        config = {key: value for key, value in config.items() if key != "class"}
        try:
            self.probe = plugins().probe(config.pop("probe"))
        except KeyError:
            raise LmsatError(f"the task {config.get('task')} names no probe: add `probe: NAME` to its YAML") from None
        metadata = dict(config.get("metadata") or {})
        self.VERSION = self.probe.version
        self._higher_is_better: dict[str, bool] = dict(self.probe.higher_is_better)
        self.corpus_settings = parse_own(CorpusSettings, metadata)
        self.probe_settings = parse_own(self.probe.settings_type, metadata)
        # Like ConfigurableTask, without Task.__init__, which would take the config for the task's name.
        self._config = TaskConfig(**{"output_type": REQUEST_TYPE, "num_fewshot": 0, **config})
        self._filters = [build_filter_ensemble("none", [["take_first", None]])]
        self._instances: list[Instance] | None = None
        self.fewshot_rnd = None
        self.download()

    def download(self, *args: Any, **kwargs: Any) -> None:
        """Load the corpus, if the probe needs one; tasks on one corpus load it once."""
        self.documents: Sequence[str] = ()
        if self.probe.needs & CORPUS:
            self.documents = load_corpus(self.corpus_settings, plugins().corpora).documents

    @property
    def doc(self) -> dict[str, Any]:
        """The one document that lm-eval sees: the probe and its settings."""
        return {"probe": self.probe.name, **self.corpus_settings.model_dump(), **self.probe_settings.model_dump()}

    @property
    def eval_docs(self) -> Sequence[Any]:
        """The documents of the corpus, which ``--limit`` counts."""
        return self.documents or [self.doc]

    def doc_iterator(self, **kwargs: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the one document, on every process."""
        yield 0, self.doc

    def build_all_requests(self, *, limit: int | None = None, **kwargs: Any) -> None:
        """Build the one request."""
        request = ProbeRequest(
            probe=self.probe.name,
            probe_settings=self.probe_settings,
            corpus_settings=self.corpus_settings,
            limit=None if limit is None else int(limit),
            metadata=dict(self.config.metadata or {}),
        )
        self._instances = [self.construct_requests(self.doc, request)]

    def construct_requests(self, doc: dict[str, Any], ctx: ProbeRequest, **kwargs: Any) -> Instance:
        """Wrap a probe request. The first argument is a string: lm-eval hashes it."""
        return Instance(
            request_type=REQUEST_TYPE,
            doc=doc,
            arguments=(f"{self.config.task} {doc}", ctx),
            idx=0,
            metadata=(self.config.task, 0, 1),
        )

    def process_results(self, doc: dict[str, Any], results: Sequence[dict[str, float]]) -> dict[str, float]:
        """Return the metrics that the model's answer holds."""
        return dict(results[0])

    def aggregation(self) -> dict[str, Callable]:
        """Return how to aggregate each metric: by its first value, since every process returns the same."""
        return defaultdict(lambda: itemgetter(0))

    def higher_is_better(self) -> dict[str, bool]:
        """Return the directions of the metrics that have one."""
        return self._higher_is_better

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        """Return an empty text: there is neither a prompt nor a target."""
        return ""

    doc_to_target = doc_to_text

    def has_training_docs(self) -> bool:
        """Return False."""
        return False

    has_validation_docs = has_training_docs

    def has_test_docs(self) -> bool:
        """Return True: the documents are the corpus."""
        return True


def _refuse(lm: LM, requests: list[Instance]) -> list[dict[str, float]]:
    raise LmsatError(
        f"the model type {type(lm).__name__} gives no hidden states or weights, which "
        f"{', '.join(str(request.task_name) for request in requests)} needs: run with --model lmsat"
    )


def _measure_with_hf(lm: HFLM, requests: list[Instance]) -> list[dict[str, float]]:
    return run_probe_requests(lm, requests, known_arguments=None)


def _with_provenance(get_model_info: Callable[[Any], dict]) -> Callable[[Any], dict]:
    def get_model_info_with_lmsat(lm: Any) -> dict:
        return {**get_model_info(lm), **provenance_of(lm)}

    return get_model_info_with_lmsat


def _teach_lm_eval() -> None:
    """Give every model of lm-eval an answer to our request type: a measurement, or a refusal in a sentence.

    A task cannot see which model will run it, and lm-eval calls ``getattr(lm, "lmsat_probe")``.
    """
    if not hasattr(LM, REQUEST_TYPE):
        LM.lmsat_probe = _refuse
        HFLM.lmsat_probe = _measure_with_hf
        HFLM.get_model_info = _with_provenance(HFLM.get_model_info)
    sentence_for_lm_eval_command()


_teach_lm_eval()
