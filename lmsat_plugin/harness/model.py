"""``--model lmsat``: lm-eval's Hugging Face model with an exact loss, probes, and a head of any rank."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from lmsat_plugin.errors import LmsatError, first_sentence, sentence_for_lm_eval_command
from lmsat_plugin.files import check_writable
from lmsat_plugin.harness.probing import provenance_of, run_probe_requests
from lmsat_plugin.measurement.checkpoint import check_checkpoint_folder, load_whole
from lmsat_plugin.measurement.forward import ForwardPass, Processes, batch_token_budget
from lmsat_plugin.measurement.restricted_head import truncate_head
from lmsat_plugin.measurement.surgery import dissect
from lmsat_plugin.measurement.windows import Window, check_tokenizer, rolling_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import transformers
    from lm_eval.api.instance import Instance

    from lmsat_plugin.measurement.measure import Outcome
    from lmsat_plugin.probes.base import TokenBatch

logger = logging.getLogger(__name__)
sentence_for_lm_eval_command()


@register_model("lmsat")
class SaturationLM(HFLM):
    """lm-eval's ``hf`` model, taking all its arguments, that measures besides.

    Args:
        pretrained: A folder, a Hub name, or a loaded model.
        head_rank: Truncate the LM head to this rank, by its best approximation in the Frobenius norm, so that
            any task of lm-eval runs with a rank-restricted head.
        arrays: A folder for the array results, as safetensors.
        kwargs: The arguments of ``hf``.

    Raises:
        LmsatError: For a checkpoint that cannot be read, is incomplete, or has another tokenizer's vocabulary.
    """

    AUTO_MODEL_CLASS: Any

    def __init__(
        self,
        pretrained: str | transformers.PreTrainedModel,
        head_rank: int | None = None,
        arrays: str | None = None,
        **kwargs: Any,
    ) -> None:
        self._arguments = {"pretrained", "head_rank", "arrays", *kwargs}
        self.arrays = arrays
        self.head_rank = head_rank
        self.lmsat_outcomes: list[Outcome] = []
        if kwargs.get("device") is None:
            kwargs["device"] = "cuda" if torch.cuda.is_available() else "cpu"
        if arrays is not None:
            check_writable(Path(arrays))
        if isinstance(pretrained, str):
            check_checkpoint_folder(pretrained, kwargs.get("subfolder") or "", kwargs.get("gguf_file"))
        try:
            super().__init__(pretrained, **kwargs)
        except LmsatError:
            raise
        except Exception as error:
            revision = kwargs.get("revision")
            where = f"{pretrained} at revision {revision}" if revision else f"{pretrained}"
            raise LmsatError(
                f"cannot load the model {where} ({first_sentence(error)}): "
                "correct the name, the revision or the model arguments; LMSAT_DEBUG=1 shows more"
            ) from error
        if hasattr(self, "accelerator"):
            # HFLM leaves rank 0 of 1 on CPUs, and takes the rank within the machine on several machines.
            self._rank = self.accelerator.process_index
            self._world_size = self.accelerator.num_processes
        if self.backend == "causal":
            rows = self.model.get_input_embeddings().weight.shape[0]
            check_tokenizer(self.tokenizer, rows, str(kwargs.get("tokenizer") or pretrained))
        if head_rank is not None:
            truncate_head(self.model, head_rank)

    def _create_model(self, *args: Any, **kwargs: Any) -> None:
        """Load as ``hf`` does, but refuse a checkpoint with weights missing instead of inventing them."""
        loader = self.AUTO_MODEL_CLASS
        self.AUTO_MODEL_CLASS = load_whole(loader)
        try:
            super()._create_model(*args, **kwargs)
        finally:
            self.AUTO_MODEL_CLASS = loader

    def lmsat_probe(self, requests: Sequence[Instance]) -> list[dict[str, float]]:
        """Answer the requests of all ``lmsat_*`` tasks in one forward pass per corpus."""
        return run_probe_requests(self, requests, self._arguments)

    def get_model_info(self) -> dict:
        """Return what ``hf`` does, and ``lmsat``: the provenance of the measurements."""
        return {**super().get_model_info(), **provenance_of(self)}

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return each string's log-likelihood in nats: ``hf``'s windows, with the loss in float32 or better.

        Windows of all documents are sorted by length and batched by tokens, at most ``batch_size`` windows of
        the full context; logits of a batch never exist as a whole. Each document's sum is in float64.
        """
        if self.backend != "causal":
            return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)
        texts = [request.args[0] for request in requests]
        encoded = [torch.tensor(self.tok_encode(text), dtype=torch.int32).numpy() for text in texts]
        windows: list[Window] = [
            window
            for index, tokens in enumerate(encoded)
            for window in rolling_windows(index, tokens, self.prefix_token_id, self.max_length)
        ]
        sums = torch.zeros(len(texts), dtype=torch.float64)
        if windows:
            self._rolling_pass(windows, sums, show_progress=not disable_tqdm and self.rank == 0)
        results = (-sums).tolist()
        for text, result in zip(texts, results, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), result)
        return results

    def _rolling_pass(self, windows: list[Window], sums: torch.Tensor, show_progress: bool) -> None:
        def start() -> None:
            sums.zero_()

        def add(losses_N: torch.Tensor, batch: TokenBatch) -> None:
            sums.index_add_(0, batch.documents_N.cpu(), losses_N.cpu())

        budget = batch_token_budget(
            self.batch_size, self.max_batch_size or 64, windows, self.max_length, self.device
        )
        anatomy = dissect(self.model, torch.from_numpy(windows[0].tokens[:-1]))
        # lm-eval has dealt the documents out already: each process runs all its own windows.
        forward = ForwardPass.over(
            anatomy, windows, budget, Processes(), self.device, self.mixed_precision_dtype, show_progress
        )
        forward.run(start, None, add)
