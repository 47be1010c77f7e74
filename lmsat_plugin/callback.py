"""The callback that measures a model while transformers' Trainer trains it."""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from transformers import ProcessorMixin, TrainerCallback
from transformers.trainer_callback import CallbackHandler

from lmsat_plugin.errors import LmsatError, first_sentence, wants_traceback
from lmsat_plugin.measuring import make_probes, measure
from lmsat_plugin.probe import Probe

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

# Of measure(); other settings are the probes'.
_OF_THE_CORPUS = ("seed", "text_field", "prefix", "max_length", "prefix_token_id")


class SaturationCallback(TrainerCallback):
    """Measure the Trainer's model at step 0, after every ``every`` steps, and at the end.

    The values are logged like the Trainer's own: they are in ``trainer.state.log_history`` and in the trackers that
    ``report_to`` names, under the names of a sweep (``lmsat_loss/loss``). They equal those of the saved checkpoint.
    The training is the same, to the bit, as without the callback. With several processes, all measure together.
    A measurement that fails is a warning, and the training goes on.

    Attributes:
        history: One dictionary for each measurement: ``step``, ``tokens`` (where
            ``include_num_input_tokens_seen`` counts them, else None) and ``metrics``.
    """

    def __init__(
        self,
        probes: Sequence[str | Probe] = ("loss", "anisotropy", "head"),
        every: int = 500,
        corpus: str | Iterable[str] = "sample",
        tokenizer: PreTrainedTokenizerBase | str | None = None,
        max_tokens: int | None = 20_000,
        batch_size: int | str = "auto",
        at_start: bool = True,
        at_end: bool = True,
        **settings: Any,
    ) -> None:
        """Check the arguments.

        Args:
            probes: Names of probes, or instances.
            every: Steps of the optimizer from one measurement to the next.
            corpus: ``sample``, a path, a named corpus, or the documents themselves.
            tokenizer: A tokenizer, its folder or its name; by default the Trainer's ``processing_class``.
            max_tokens: Tokens to measure; None takes the whole corpus.
            batch_size: Windows a batch, or ``auto``.
            at_start: Measure at step 0.
            at_end: Measure at the last step.
            settings: Settings of the probes, and ``seed``, ``text_field``, ``prefix``, ``max_length`` and
                ``prefix_token_id`` of `lmsat_plugin.measure`.

        Raises `LmsatError` for a wrong number of steps, an unknown probe, or an unknown setting.
        """
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise LmsatError(f"every={every!r} is not a number of steps: give a whole number, at least 1")
        make_probes(probes, {k: v for k, v in settings.items() if k not in _OF_THE_CORPUS})
        self.every = every
        self.at_start = at_start
        self.at_end = at_end
        self.tokenizer = tokenizer
        self.arguments = {
            "probes": tuple(probes),
            "corpus": corpus if isinstance(corpus, str) else tuple(corpus),
            "max_tokens": max_tokens,
            "batch_size": batch_size,
            **settings,
        }
        self.history: list[dict[str, Any]] = []
        self._last_step: int | None = None

    def to_frame(self) -> pd.DataFrame:
        """Return the history as a table with the columns step, tokens, task, metric, value."""
        import pandas as pd

        rows = [
            (entry["step"], entry["tokens"], *name.split("/", 1), value)
            for entry in self.history
            for name, value in entry["metrics"].items()
        ]
        return pd.DataFrame(rows, columns=["step", "tokens", "task", "metric", "value"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the model as it was given; not where a training is resumed."""
        self._last_step = None
        if self.at_start and state.global_step == 0:
            self._measure(args, state, control, **kwargs)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure after a step of the optimizer, if it is due or the last."""
        if state.global_step % self.every == 0:
            self._measure(args, state, control, **kwargs)
        self._measure_if_last(args, state, control, **kwargs)

    def _measure_if_last(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.at_end and control.should_training_stop:
            self._measure(args, state, control, **kwargs)

    # Early stopping is decided after the step's end. on_train_end is too late: trackers have closed by then.
    on_save = on_epoch_end = _measure_if_last

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the model at the end, unless that is done or the Trainer has loaded another step's."""
        if not self.at_end or state.global_step == self._last_step:
            return
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            logger.warning("step %d is not measured: the Trainer has loaded its best model", state.global_step)
        else:
            self._measure(args, state, control, **kwargs)

    def _measure(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        step = state.global_step
        if step == self._last_step:
            return
        self._last_step = step
        tokenizer = self.tokenizer or kwargs.get("processing_class")
        if isinstance(tokenizer, ProcessorMixin):
            tokenizer = tokenizer.tokenizer
        model = extract_model_from_parallel(kwargs["model"], keep_torch_compile=False)
        try:
            with _undisturbed(model):
                outcome = measure(model, tokenizer=tokenizer, **self.arguments)
        except Exception as error:
            logger.warning("step %d is not measured: %s", step, first_sentence(error), exc_info=wants_traceback())
            return
        metrics = {name: float(value) for name, value in outcome.metrics.items() if value is not None}
        counted = args.include_num_input_tokens_seen not in (False, "no")
        tokens = int(state.num_input_tokens_seen) if counted else None
        self.history.append({"step": step, "tokens": tokens, "metrics": metrics})
        # This is what `Trainer.log` does. A Trainer's own `log` may also log what it has gathered for its next entry.
        logs = dict(metrics)
        if state.epoch is not None:
            logs["epoch"] = state.epoch
        if tokens is not None:
            logs["num_input_tokens_seen"] = tokens
        state.log_history.append({**logs, "step": step})
        handler = self._find_handler(kwargs["model"], kwargs.get("optimizer"))
        if handler is None:
            _warn_of_history_only()
            return
        # Logging takes back the flag by which the Trainer's own log of this step is due.
        due = control.should_log
        handler.on_log(args, state, control, logs)
        control.should_log = due

    def _find_handler(self, model: torch.nn.Module, optimizer: Any) -> CallbackHandler | None:
        """Return the handler that calls this callback for the Trainer of this model and optimizer.

        Several Trainers may share one callback.
        """
        handlers = (handler for handler in _HANDLERS if self in handler.callbacks)
        return next((h for h in handlers if h.model is model and h.optimizer is optimizer), None)


# The integrations that ``report_to`` names are callbacks too: only a Trainer's handler reaches them. transformers
# passes a callback neither its handler nor its Trainer, so each handler is remembered when the callback is added.
_HANDLERS: weakref.WeakSet[CallbackHandler] = weakref.WeakSet()


def _remembering(add_callback: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(add_callback)
    def add_and_remember(handler: CallbackHandler, callback: Any) -> None:
        add_callback(handler, callback)
        if isinstance(handler.callbacks[-1], SaturationCallback):
            _HANDLERS.add(handler)

    return add_and_remember


CallbackHandler.add_callback = _remembering(CallbackHandler.add_callback)


@functools.cache
def _warn_of_history_only() -> None:
    logger.warning("metrics are in the Trainer's log_history only: add the callback with Trainer.add_callback")


@contextlib.contextmanager
def _undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Restore what measuring changes or may change: modes, hooks, gradients and random numbers.

    Inside, the model computes as its saved checkpoint does: without mixed precision, and not compiled.
    """
    modules = [(module, dict(module.__dict__), set(module._forward_hooks)) for module in model.modules()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = sorted({p.device.index for p, _ in gradients if p.device.type == "cuda"})
    # Compiling for the measurement's shapes would count towards the limit on how often code is compiled again.
    stance = getattr(torch.compiler, "set_stance", None)
    with torch.random.fork_rng(devices), stance("force_eager") if stance else contextlib.nullcontext():
        try:
            for parameter, _ in gradients:
                parameter.grad = None
            if "_original_forward" in model.__dict__:  # accelerate's, beneath its mixed precision
                model.forward = model.__dict__["_original_forward"]
            yield
        finally:
            for module, attributes, hooks in modules:
                # transformers leaves hooks, and a mark, in a model that was asked for hidden states: they break the
                # graphs of compiled code.
                for hook in module._forward_hooks.keys() - hooks:
                    del module._forward_hooks[hook]
                for key in module.__dict__.keys() - attributes.keys():
                    del module.__dict__[key]
                module.__dict__.update(attributes)
            for parameter, gradient in gradients:
                parameter.grad = gradient
            random.setstate(python_state)
            np.random.set_state(numpy_state)
