"""Log a sweep's results to trackio, Weights & Biases or TensorBoard while it runs.

Each tracker is a plugin. It acts where the sweep's configuration names it, and imports its package only then.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import folder_name, safe_name
from lmsat_plugin.hookspecs import CheckpointEvaluated, SweepFinished, hookimpl


class Tracker(ABC):
    """Base of the built-in trackers: one run per model, kept open until the sweep ends."""

    name: str
    package: str
    """The module to import; the pip extra has the tracker's name."""
    of_the_run: Collection[str]
    """The arguments of the package's ``init`` that make the run: all others are settings."""

    def __init__(self) -> None:
        self.runs: dict[tuple[Path, str], Any] = {}

    def imported(self) -> Any:
        """Return the package. Raises `LmsatError` if it does not import."""
        try:
            return importlib.import_module(self.package)
        except ImportError as error:
            raise LmsatError(
                f"the tracker '{self.name}' does not import ({first_sentence(error)}): "
                f"pip install 'lmsat-plugin[{self.name}]'"
            ) from error

    def known_settings(self) -> Collection[str]:
        """Return the names of the settings. Raises `LmsatError` if the package does not import."""
        return inspect.signature(self.imported().init).parameters.keys() - self.of_the_run

    @abstractmethod
    def start(self, event: CheckpointEvaluated, settings: Mapping[str, Any]) -> Any:
        """Begin or continue the run of the event's model."""

    @abstractmethod
    def log(self, run: Any, event: CheckpointEvaluated, metrics: Mapping[str, float]) -> None:
        """Log metrics, all finite. Steps may go back: checkpoints are measured in any order."""

    @abstractmethod
    def finish(self, run: Any) -> None:
        """End a run."""

    @hookimpl
    def lmsat_checkpoint_evaluated(self, event: CheckpointEvaluated) -> None:
        """Log a checkpoint, if the sweep asks for this tracker."""
        if self.name not in event.trackers:
            return
        key = (event.output, event.series)
        if key not in self.runs:
            self.runs[key] = self.start(event, event.trackers[self.name])
        self.log(self.runs[key], event, {k: v for k, v in event.metrics.items() if math.isfinite(v)})

    @hookimpl
    def lmsat_sweep_finished(self, event: SweepFinished) -> None:
        """End the sweep's runs."""
        with contextlib.ExitStack() as stack:  # which ends the others also where one fails
            for key in [key for key in self.runs if key[0] == event.output]:
                stack.callback(self.finish, self.runs.pop(key))


class Trackio(Tracker):
    """`trackio <https://github.com/gradio-app/trackio>`_: local, or a Hugging Face Space with ``space_id``."""

    name = package = "trackio"
    of_the_run = ("name", "resume")

    def start(self, event: CheckpointEvaluated, settings: Mapping[str, Any]) -> Any:
        """Begin or continue the run. trackio ends the run that was open, so there is never a second."""
        self.runs.clear()
        given = {"project": _project(event), **settings}
        with contextlib.redirect_stdout(sys.stderr):
            return self.imported().init(**given, name=event.series, resume="allow")

    def log(self, run: Any, event: CheckpointEvaluated, metrics: Mapping[str, float]) -> None:
        """Log metrics; the dashboard lets one choose the axis."""
        tokens = {} if event.tokens is None else {"tokens": event.tokens}
        run.log({"revision": event.revision, **tokens, **metrics}, step=event.step)

    def finish(self, run: Any) -> None:
        """Write what is left. (After ``run.finish()`` trackio would finish the run again at exit, with a message.)"""
        with contextlib.redirect_stdout(sys.stderr):
            self.imported().finish()


class Wandb(Tracker):
    """`Weights & Biases <https://wandb.ai>`_; ``mode: offline`` writes files for ``wandb sync``."""

    name = package = "wandb"
    of_the_run = ("name", "id", "resume", "reinit")

    def start(self, event: CheckpointEvaluated, settings: Mapping[str, Any]) -> Any:
        """Begin or continue the run, whose id follows from the output folder and the model."""
        identity = hashlib.sha256(f"{event.output.resolve()}\n{event.series}".encode()).hexdigest()[:16]
        # Runs that are open already, of other models or of the user's program, stay open.
        how = {"name": event.series, "id": identity, "resume": "allow", "reinit": "create_new"}
        run = self.imported().init(**{"project": _project(event), **settings}, **how)
        # wandb's own step may not go back, and a checkpoint without a step would get the previous one's.
        axis = "tokens" if event.step is None and event.tokens is not None else "step"
        run.define_metric("*", step_metric=axis, step_sync=False)
        return run

    def log(self, run: Any, event: CheckpointEvaluated, metrics: Mapping[str, float]) -> None:
        """Log metrics, with step and tokens as values among them, either of which can be the axis."""
        axes = {"step": event.step, "tokens": event.tokens}
        known = {key: value for key, value in axes.items() if value is not None}
        run.log({"revision": event.revision, **known, **metrics})

    def finish(self, run: Any) -> None:
        """Send what is left."""
        run.finish()


class TensorBoard(Tracker):
    """TensorBoard's event files, a folder per model in ``log_dir``; each metric by step and by tokens."""

    name, package = "tensorboard", "torch.utils.tensorboard"

    def known_settings(self) -> Collection[str]:
        """Return the one setting."""
        self.imported()
        return ["log_dir"]

    def start(self, event: CheckpointEvaluated, settings: Mapping[str, Any]) -> Any:
        """Open another event file in the model's folder, which TensorBoard reads as one run."""
        folder = Path(settings.get("log_dir", event.output / "tensorboard"))
        return self.imported().SummaryWriter(str(folder / folder_name(event.series)))

    def log(self, run: Any, event: CheckpointEvaluated, metrics: Mapping[str, float]) -> None:
        """Write metrics to the file."""
        axes = {"by_step": event.step, "by_tokens": event.tokens}
        known = {f"/{axis}": position for axis, position in axes.items() if position is not None}
        for metric, value in metrics.items():
            for axis, position in (known or {"": 0}).items():
                run.add_scalar(metric + axis, value, global_step=position)
        run.flush()

    def finish(self, run: Any) -> None:
        """Close the file."""
        run.close()


TRACKERS: tuple[type[Tracker], ...] = (Trackio, Wandb, TensorBoard)


def _project(event: CheckpointEvaluated) -> str:
    return safe_name(event.output.resolve().name)
