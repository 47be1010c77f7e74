"""Evaluate one checkpoint after another through lm-eval, with one model whose weights change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.utils_hf import clear_torch_cache, get_dtype

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.harness.result_document import as_written_by_lm_eval, cached_environment
from lmsat_plugin.harness.second_models import CHANGES_WEIGHTS
from lmsat_plugin.harness.shared_tasks import SharedTasks
from lmsat_plugin.harness.smaller_batches import halve_batch
from lmsat_plugin.measurement.execution import Processes
from lmsat_plugin.measurement.references import References
from lmsat_plugin.model.adapters import read_adapter, tokenizer_folder
from lmsat_plugin.model.checkpoint_files import tokenizer_digest
from lmsat_plugin.model.fixed import AlteredError, model_digest
from lmsat_plugin.model.loading import HeadNotFoundError, load_head
from lmsat_plugin.model.memory import is_out_of_memory

logger = logging.getLogger(__name__)


@dataclass
class CheckpointEvaluator:
    """One checkpoint after another, each evaluated as ``lm_eval --model lmsat`` would.

    Args:
        model_args: Arguments of ``--model lmsat``, the same for all checkpoints.
        options: Arguments of lm-eval's ``simple_evaluate``: ``batch_size``, ``limit``, ``log_samples``, ...
    """

    model_args: dict[str, Any]
    options: dict[str, Any]
    lm: SaturationLM | None = None
    _tokenizer: tuple[str, Any] = ("", None)
    _cache: dict[Any, Any] = field(default_factory=dict)
    _head_only: bool = False
    _load_again: Callable[[], None] | None = None
    """Loads the same checkpoint once more."""
    _digest: str | None = None
    """The model's, as it was loaded; None if it is not that any more."""

    def load(
        self, folder: Path, *, name: str, revision: str, commit: str | None = None, head_only: bool = False
    ) -> None:
        """Load a checkpoint: its weights alone, where the previous checkpoint's model takes them.

        ``head_only`` loads the LM head and nothing else, for tasks that need no more. Raises `LmsatError` for a
        checkpoint that cannot be read, is incomplete, or has another vocabulary, and `HeadNotFoundError` where the
        head cannot be loaded alone.
        """
        if head_only and (named := sorted(self.model_args.keys() & CHANGES_WEIGHTS)):
            raise HeadNotFoundError(f"with {named[0]} the LM head may be another than the one in {folder}")
        again = partial(self.load, folder, name=name, revision=revision, commit=commit, head_only=head_only)
        if self._digest is None:
            self._forget()
        self._digest = None
        key = self._tokenizer_key(folder)
        # No name here holds the model: it has to go before another is loaded.
        if self._head_only or key != self._tokenizer[0]:
            self.lm = None
        if head_only:
            self._make(folder, key, self._load_head(folder))
            self._describe_adapter(folder)
        elif self.lm is None or not self.lm.load_weights(str(folder)):
            self._make(folder, key, str(folder))
        self._head_only = head_only
        assert self.lm is not None
        self.lm.pretrained, self.lm.revision = name, revision
        for config in (self.lm.config, self.lm.model.config):
            config._commit_hash = commit
        self._load_again, self._digest = again, model_digest(self.lm.model)

    def _load_head(self, folder: Path) -> Any:
        """Load the LM head, which of an adapter that leaves it as it is, is the base model's."""
        dtype = self.model_args.get("dtype", "auto")
        dtype = None if dtype == "auto" else get_dtype(dtype)
        trusts = bool(self.model_args.get("trust_remote_code"))
        adapter = read_adapter(folder)
        if adapter is not None:
            adapter.check()
            if adapter.changes_ends:
                raise HeadNotFoundError(f"{folder} is an adapter that may change the LM head")
            folder = adapter.base_folder
        elif self.model_args.get("merge"):
            raise HeadNotFoundError(f"{folder} is no adapter")
        device = torch.device(self.options.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
        return load_head(folder, dtype=dtype, trust_remote_code=trusts, device=device)

    def _describe_adapter(self, folder: Path) -> None:
        assert self.lm is not None
        if (adapter := read_adapter(folder)) is not None:
            self.lm.lmsat_adapter = adapter.describe(merged=bool(self.model_args.get("merge")))

    def _forget(self) -> None:
        """Have the next checkpoint loaded into a model of its own, with its own tokenizer and tokens."""
        self.lm, self._cache, self._tokenizer = None, {}, ("", None)

    def _make(self, folder: Path, key: str, pretrained: Any) -> None:
        """Make a model anew, once the previous one has given its memory back."""
        self.lm = None
        clear_torch_cache()
        if key != self._tokenizer[0]:
            self._cache = {}
            self._tokenizer = (key, None)
        arguments = dict(self.model_args)
        if not isinstance(pretrained, str):
            # A head alone is one that merging does not change.
            arguments.pop("merge", None)
        arguments["tokenizer"] = self._tokenizer[1] or arguments.get("tokenizer")
        if arguments["tokenizer"] is None and not isinstance(pretrained, str):
            arguments["tokenizer"] = str(tokenizer_folder(folder))
        sizes = {key: self.options[key] for key in ("batch_size", "max_batch_size") if key in self.options}
        self.lm = SaturationLM(pretrained, device=self.options.get("device"), **sizes, **arguments)
        if not isinstance(pretrained, str):
            # A model without weights has no device of its own.
            self.lm._device = pretrained.get_output_embeddings().weight.device
        self.lm.lmsat_cache = self._cache
        self._tokenizer = (key, self.lm.tokenizer)

    def _tokenizer_key(self, folder: Path) -> str:
        """Return what two checkpoints of one tokenizer have in common."""
        named = self.model_args.get("tokenizer")
        if named is not None:
            return f"named {named}"
        return tokenizer_digest(tokenizer_folder(folder))

    @property
    def tokenizer_key(self) -> str:
        """What identifies the tokenizer of the checkpoint that is loaded."""
        return self._tokenizer[0]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the last evaluation, named ``probe/array``."""
        assert self.lm is not None
        return {name: array for outcome in self.lm.lmsat_outcomes for name, array in outcome.arrays.items()}

    def evaluate(
        self,
        tasks: SharedTasks,
        names: Sequence[str],
        *,
        num_fewshot: int | None,
        model_args: dict[str, Any],
        references: References | None = None,
    ) -> dict[str, Any] | None:
        """Evaluate the loaded checkpoint; return what lm-eval would write, or None on other ranks than the first.

        ``model_args`` is how ``lm_eval`` would have been told to load it. Where memory runs out on a single process,
        the batch is halved until it holds one sequence. Raises `LmsatError` for a checkpoint that cannot be measured,
        and for tasks whose code changes the model in memory; the checkpoint is loaded again before the next ones are
        evaluated then.
        """
        if self._digest is None and self._load_again is not None:
            self._load_again()
        assert self.lm is not None
        before, self._digest = self._digest, None
        self.lm.lmsat_references = references and replace(references, load=self.lm.load_reference)
        try:
            results = self._evaluate(tasks, names, num_fewshot, model_args)
        except AlteredError:
            raise
        except Exception:
            self._digest = before if model_digest(self.lm.model) == before else None
            raise
        if model_digest(self.lm.model) != before:
            raise AlteredError(
                f"the model in memory was changed while {', '.join(names)} ran: leave out what has code that does so"
            )
        self._digest = before
        return results

    def _evaluate(
        self, tasks: SharedTasks, names: Sequence[str], num_fewshot: int | None, model_args: dict[str, Any]
    ) -> dict[str, Any] | None:
        assert self.lm is not None
        self.lm.lmsat_outcomes, self.lm.lmsat_downstream = [], None
        while True:
            tracker = EvaluationTracker()
            try:
                with cached_environment():
                    results = simple_evaluate(
                        model=self.lm,
                        model_args=model_args,
                        tasks=list(names),
                        num_fewshot=num_fewshot,
                        task_manager=tasks,
                        evaluation_tracker=tracker,
                        **self.options,
                    )
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if Processes.current().size > 1:
                    # The others wait for this one, in another place than where it would begin again.
                    raise LmsatError(
                        f"memory does not suffice on one of several processes ({first_sentence(error)}): "
                        "set batch_size lower"
                    ) from error
                halve_batch(self.lm, error)
            clear_torch_cache()
        return None if results is None else as_written_by_lm_eval(results, tracker, model_args)
