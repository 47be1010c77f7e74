"""``--model lmsat``: lm-eval's Hugging Face model with an exact loss, probes, and an LM head of any rank."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils_hf import clear_torch_cache, get_dtype

from lmsat_plugin.errors import DivergedError, LmsatError, first_sentence, sentence_for_lm_eval_command
from lmsat_plugin.files import check_writable
from lmsat_plugin.harness.adapters_put_on import TakesAdapters
from lmsat_plugin.harness.loglikelihoods import answer_requests, place_of
from lmsat_plugin.harness.probe_requests import provenance_of, run_probe_requests
from lmsat_plugin.harness.second_models import CHANGES_WEIGHTS, LoadsReferences
from lmsat_plugin.harness.smaller_batches import with_smaller_batches
from lmsat_plugin.measurement.execution import Execution, Processes, cached
from lmsat_plugin.measurement.forward import ForwardPass, PassCallbacks
from lmsat_plugin.measurement.outcome import Outcome
from lmsat_plugin.model.adapters import ADAPTER_CONFIG
from lmsat_plugin.model.anatomy import architecture_of, check_positions, dissect, unwrap
from lmsat_plugin.model.checkpoint_files import check_checkpoint_folder
from lmsat_plugin.model.computing_type import is_widened, note_stored_type, stored_type, widen, widened
from lmsat_plugin.model.divergence import naming_weights, weight_not_finite
from lmsat_plugin.model.float32 import exact_float32
from lmsat_plugin.model.head_files import RestrictedHead
from lmsat_plugin.model.lm_head import is_tied
from lmsat_plugin.model.loading import keep_untied, load_whole
from lmsat_plugin.model.memory import free_memory, is_out_of_memory
from lmsat_plugin.model.spectrum import device_of_float64
from lmsat_plugin.probe import TokenBatch
from lmsat_plugin.scoring.continuations import Trust
from lmsat_plugin.text.tokenization import check_tokenizer
from lmsat_plugin.text.windows import PREFIX_POLICIES, Window, rolling_windows

logger = logging.getLogger(__name__)
sentence_for_lm_eval_command()

# What a GPU keeps free for whatever comes up while a second model is on it.
_SPARE_BYTES = 1 << 30


@contextmanager
def _named_errors(pretrained: str, revision: str | None = None) -> Iterator[None]:
    """Raise `LmsatError` for whatever goes wrong while a model loads."""
    try:
        yield
    except LmsatError:
        raise
    except Exception as error:
        where = f"{pretrained} at revision {revision}" if revision else pretrained
        raise LmsatError(
            f"cannot load the model {where} ({first_sentence(error)}): "
            "correct the name, the revision or the model arguments; LMSAT_DEBUG=1 shows more"
        ) from error


@register_model("lmsat")
class SaturationLM(TakesAdapters, LoadsReferences, HFLM):
    """lm-eval's ``hf`` model, with all its arguments, that also answers the requests of probes.

    Args:
        pretrained: A folder, a Hub name, or a loaded model.
        head_rank: Truncate the LM head to this rank, by its best approximation in the Frobenius norm, so that
            any task of lm-eval runs with a rank-restricted head.
        head: A file with a rank-restricted head to put in the place of the model's own, that ``lmsat_rank_head``
            has trained or truncated (``heads=FOLDER``).
        arrays: A folder for the array results, as safetensors.
        merge: Merge the adapter that ``pretrained`` or ``peft`` names into the weights, instead of computing it beside.
        rolling_prefix: Where ``loglikelihood_rolling`` puts the prefix token: before each ``document``, as ``hf`` does,
            or before every ``window``. It is not for the tasks of lmsat, which have the setting ``prefix``.
        shared_prefixes: Whether the common prefixes of requests for log-likelihoods are encoded once.
        kwargs: The arguments of ``hf``.

    Raises `LmsatError` for a checkpoint that cannot be read, is incomplete, or has another tokenizer's vocabulary.
    """

    AUTO_MODEL_CLASS: Any

    def __init__(
        self,
        pretrained: str | transformers.PreTrainedModel,
        head_rank: int | None = None,
        head: str | None = None,
        arrays: str | None = None,
        rolling_prefix: str = "document",
        shared_prefixes: bool = True,
        merge: bool = False,
        **kwargs: Any,
    ) -> None:
        self._given = dict(kwargs)
        own = ("pretrained", "head_rank", "head", "arrays", "rolling_prefix", "shared_prefixes", "merge")
        self._arguments = {*own, *kwargs}
        self.arrays = arrays
        if rolling_prefix not in PREFIX_POLICIES:
            raise LmsatError(f"rolling_prefix={rolling_prefix!r} is none of its values: give document or window")
        self.rolling_prefix, self.shared_prefixes = rolling_prefix, bool(shared_prefixes)
        self.head_rank, self.head, self.merge = head_rank, head, merge
        self.restricted_head: RestrictedHead | None = None
        self.lmsat_outcomes: list[Outcome] = []
        self.lmsat_downstream: dict[str, Any] | None = None
        """How the log-likelihoods were computed."""
        self.lmsat_cache: dict[Any, Any] | None = None
        self.trust: Trust = {}
        self.encoded_texts: dict[str, list[int]] = {}
        self._fitting: dict[Any, int] = {}
        if kwargs.get("device") is None:
            kwargs["device"] = "cuda" if torch.cuda.is_available() else "cpu"
        if arrays is not None:
            check_writable(Path(arrays))
        pretrained = unwrap(pretrained)
        adapter = self._find_adapter(pretrained, merge)
        base = pretrained if adapter is None else self._base_of(adapter, kwargs)
        if isinstance(base, str) and not {"variant", "use_safetensors"} & kwargs.keys():
            check_checkpoint_folder(base, kwargs.get("subfolder") or "", kwargs.get("gguf_file"))
        if isinstance(base, transformers.PreTrainedModel):
            keep_untied(type(base).__name__, base)
        with _named_errors(f"{base}", kwargs.get("revision")):
            super().__init__(base, **kwargs)
        if adapter is not None:
            self.pretrained, self.revision = pretrained, str(self._given.get("revision") or "main")
            self._put_on(adapter, merge)
        if hasattr(self, "accelerator"):
            # HFLM leaves rank 0 of 1 on CPUs, and takes the rank within the machine on several machines.
            self._rank = self.accelerator.process_index
            self._world_size = self.accelerator.num_processes
        if self.backend == "causal":
            rows = self.model.get_input_embeddings().weight.shape[0]
            check_tokenizer(self.tokenizer, rows, str(kwargs.get("tokenizer") or base))
        self._restrict_head()

    def _create_model(self, *args: Any, **kwargs: Any) -> None:
        """Load as ``hf`` does, but refuse a checkpoint with weights missing instead of inventing them.

        An adapter is put on later: ``hf`` would cut the rows off that the tokenizer does not need.
        """
        loader = self.AUTO_MODEL_CLASS
        self.AUTO_MODEL_CLASS = load_whole(loader)
        try:
            super()._create_model(*args, **{**kwargs, "peft": None})
        finally:
            self.AUTO_MODEL_CLASS = loader
        if self._takes_stored_type:
            widen(unwrap(self._model), self.device)

    @property
    def _takes_stored_type(self) -> bool:
        """Whether nothing is said of the type to compute in."""
        given = self._given
        return given.get("dtype", "auto") == "auto" and given.get("mixed_precision_dtype") is None

    def lmsat_probe(self, requests: Sequence[Instance]) -> list[dict[str, float]]:
        """Answer the requests of all ``lmsat_*`` tasks in one forward pass per corpus."""
        return run_probe_requests(self, requests, self._arguments)

    def load_weights(self, folder: str) -> bool:
        """Load the weights of another checkpoint of the same series into this model.

        They are loaded by transformers' own loader, which renames and merges tensors as needed, and copied into the
        tensors of this model. Returns False, with nothing changed, for a checkpoint of another architecture or type,
        and for models whose weights are not used as they are stored. Raises `LmsatError` for a checkpoint that cannot
        be read or is incomplete.
        """
        if self._arguments & CHANGES_WEIGHTS or getattr(self.config, "quantization_config", None):
            return False
        if self.lmsat_adapter is not None or (Path(folder) / ADAPTER_CONFIG).is_file():
            return self._exchange_adapter(folder)
        check_checkpoint_folder(folder)
        with _named_errors(folder):
            remote = bool(self._given.get("trust_remote_code"))
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=remote)
            # Each folder may have other code.
            if architecture_of(config) != architecture_of(self.config) or getattr(config, "auto_map", None):
                return False
            dtype = get_dtype(self._given.get("dtype", "auto"))
            fresh = self._load_beside(folder, dtype=dtype, trust_remote_code=remote)
        here, there = (
            {name: (value.shape, value.dtype) for name, value in model.state_dict().items()}
            for model in (self.model, fresh)
        )
        if self._takes_stored_type and is_widened(self.model):
            there = {name: (shape, widened(dtype)) for name, (shape, dtype) in there.items()}
        if here != there or is_tied(self.model) != is_tied(fresh):
            return False
        self.model.load_state_dict(fresh.state_dict())
        note_stored_type(self.model, stored_type(fresh))
        self.model.generation_config = fresh.generation_config
        self._restrict_head()
        self.lmsat_outcomes, self.lmsat_downstream = [], None
        return True

    def _load_beside(self, folder: str, **arguments: Any) -> transformers.PreTrainedModel:
        """Load a checkpoint beside this model: onto its GPU, where there is room for both, otherwise on the CPU."""
        loader = load_whole(self.AUTO_MODEL_CLASS)
        own = sum(weight.nbytes for weight in (*self.model.parameters(), *self.model.buffers()))
        if self.device.type == "cuda" and free_memory(self.device) > 1.1 * own + _SPARE_BYTES:
            try:
                return loader.from_pretrained(folder, device_map={"": self.device}, **arguments)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            clear_torch_cache()
        return loader.from_pretrained(folder, **arguments)

    def get_model_info(self) -> dict:
        """Return what ``hf`` returns, and ``lmsat``: the provenance of the measurements.

        The commit is that of the loaded checkpoint; ``hf`` asks the Hub for it each time.
        """
        if self.peft or self.delta:
            return {**super().get_model_info(), **provenance_of(self)}
        return {
            "model_num_parameters": self.model.num_parameters(),
            "model_dtype": self.model.dtype,
            "model_stored_dtype": stored_type(unwrap(self.model)),
            "model_revision": self.revision,
            "model_sha": getattr(self.config, "_commit_hash", None) or "",
            **provenance_of(self),
        }

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return the log-likelihood in nats of each continuation, and whether it is the model's greedy one.

        The tokens are those that ``hf`` scores. Common prefixes are encoded once where the model computes the same
        numbers with them; the logits of a batch never exist as a whole, and are float32 or better. Raises
        `DivergedError` for NaN, of which lm-eval would choose the first answer, and `LmsatError` for a continuation
        without tokens or beyond the window.
        """
        if not self._scores_by_plan:
            answers = super().loglikelihood(list(requests), disable_tqdm=disable_tqdm)
            self._check_likelihoods(requests, [value for value, _ in answers])
            return answers
        shown = not disable_tqdm and self.rank == 0
        answers = answer_requests(self, requests, self._asked_together, show_progress=shown)
        self._check_likelihoods(requests, [value for value, _ in answers])
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, answer)
        return answers

    @property
    def _scores_by_plan(self) -> bool:
        """Whether the model takes plain tokens: no encoder, and no virtual tokens before its own."""
        configs = (getattr(self.model, "peft_config", None) or {}).values()
        return self.backend == "causal" and not any(config.is_prompt_learning for config in configs)

    def _check_likelihoods(
        self, requests: Sequence[Instance], values: Sequence[float], wrong: Callable[[float], bool] = isnan
    ) -> None:
        """Raise `DivergedError` for values that are wrong, with the first request that has one."""
        for request, value in zip(requests, values, strict=True):
            if wrong(value):
                self._check_finite(f"the log-likelihood of {request.args[-1][:40]!r}{place_of(request)} is {value}")
        self._check_finite(None)

    def tok_encode(self, string: str, *args: Any, **kwargs: Any) -> list[int]:
        """Return what ``hf`` returns; texts that are encoded already are looked up."""
        if not args and not kwargs and string in self.encoded_texts:
            return self.encoded_texts[string]
        return super().tok_encode(string, *args, **kwargs)

    def generate_until(self, *args: Any, **kwargs: Any) -> list[str]:
        """Return what ``hf`` returns. Raises `DivergedError` for weights with NaN, of which it would make a text."""
        self._check_finite("the text that it generates has no meaning" if weight_not_finite(self.model) else None)
        generate = super().generate_until
        return with_smaller_batches(self, lambda: generate(*args, **kwargs))

    def _check_finite(self, what: str | None) -> None:
        """Raise `DivergedError` if ``what`` is not finite, on all processes if it is not on one of them."""
        if reason := next(filter(None, self._asked_together.gather(what)), None):
            with naming_weights(self.model):
                raise DivergedError(reason)

    @property
    def _asked_together(self) -> Processes:
        """The processes that lm-eval asks at the same time, each with requests of its own.

        Of those with ``--use_cache`` it may ask one alone, and under tensor parallelism all have the same requests.
        """
        alone = self.world_size == 1 or self.cache_hook.dbdict is not None
        return Processes() if alone else Processes.current()

    def _batch_scheduler(self, pos: int, n_reordered_requests: Sequence) -> int:
        """Choose a batch size as ``hf`` does for ``batch_size=auto``, without printing it."""
        with redirect_stdout(io.StringIO()):
            return super()._batch_scheduler(pos, n_reordered_requests)

    def _detect_batch_size(self, requests: Sequence | None = None, pos: int = 0) -> int:
        """Find the batch that fits by forward passes; in a series, only for its first checkpoint."""
        if self.device.type == "cpu":
            # ``hf`` tries here as well, and always gets this.
            return self.max_batch_size
        if self.lmsat_cache is None:
            return super()._detect_batch_size(requests, pos)
        size = (len(requests), len(requests[pos][1]) + len(requests[pos][2])) if requests else None
        detect = super()._detect_batch_size
        key = (pos, size, self.max_batch_size)
        # All try batches, or none: trying them is something that they do together.
        if not all(Processes.current().gather(key in self._fitting)):
            self._fitting[key] = detect(requests, pos)
        return self._fitting[key]

    def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return what ``hf`` returns. Raises `LmsatError` for positions that the model does not have."""
        check_positions(self.model, inps.shape[-1])
        return super()._model_call(inps, *args, **kwargs)

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return each string's log-likelihood in nats: ``hf``'s windows, with the loss in float32 or better.

        With ``rolling_prefix=window`` each window begins with the prefix token. Windows of all documents are sorted by
        length and batched by tokens, at most ``batch_size`` windows of the full context; logits of a batch never exist
        as a whole. Each document's sum is in float64.
        """
        if self.backend != "causal":
            results = super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)
            self._check_likelihoods(requests, results)
            return results
        texts = [request.args[0] for request in requests]
        encoded = [cached(self.lmsat_cache, ("rolling", text), partial(self._encode, text)) for text in texts]
        windows: list[Window] = [
            window
            for index, tokens in enumerate(encoded)
            for window in rolling_windows(
                index, tokens, self.prefix_token_id, self.max_length, policy=self.rolling_prefix
            )
        ]
        sums = torch.zeros(len(texts), dtype=torch.float64, device=device_of_float64(self.device))
        if windows:
            self._rolling_pass(windows, sums, show_progress=not disable_tqdm and self.rank == 0)
        results = (-sums).tolist()
        self._check_likelihoods(requests, results, wrong=lambda value: not isfinite(value))
        for text, result in zip(texts, results, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), result)
        return results

    def _encode(self, text: str) -> np.ndarray:
        return np.asarray(self.tok_encode(text), dtype=np.int32)

    @exact_float32()
    def _rolling_pass(self, windows: list[Window], sums: torch.Tensor, show_progress: bool) -> None:
        def start() -> None:
            sums.zero_()

        def add(losses_N: torch.Tensor, batch: TokenBatch) -> None:
            sums.index_add_(0, batch.documents_N.to(sums.device), losses_N)

        anatomy = dissect(self.model, torch.from_numpy(windows[0].tokens[:-1]))
        # lm-eval has dealt the documents out already: each process runs all its own windows.
        execution = Execution(
            device=self.device,
            batch_size=self.batch_size,
            max_batch_size=self.max_batch_size or 64,
            autocast=self.mixed_precision_dtype,
        )
        forward = ForwardPass(anatomy, windows, self.max_length, execution, show_progress=show_progress)
        forward.run(PassCallbacks(start=start, on_losses=add))
