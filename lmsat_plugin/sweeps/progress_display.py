"""What a sweep shows while it runs: a bar on a terminal, a line for each checkpoint elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

from lmsat_plugin.outside_text import printable

_SHOWN = {"lmsat_loss/loss": "loss", "lmsat_anisotropy/anisotropy_last": "anisotropy"}


class ProgressDisplay:
    """Shows how many of a sweep's checkpoints are through, and how long the others will take.

    Args:
        total: The number of checkpoints.
        prefix: The name of the worker where there are several, which share one terminal and have no bars.
    """

    def __init__(self, total: int, prefix: str = "") -> None:
        self._total, self._prefix = total, prefix
        self._count = self._measured = 0
        self._begun = self._spent = 0.0
        self._bar = None
        if sys.stderr.isatty() and not prefix:
            self._bar = tqdm(total=total, desc="sweep", unit="checkpoint", dynamic_ncols=True)

    def begin(self, label: str) -> None:
        """Show that a checkpoint's turn has come."""
        self._begun = time.monotonic()
        if self._bar is not None:
            self._bar.set_description(printable(label))

    def end(self, label: str, values: Mapping[str, float], error: str | None, *, before: bool = False) -> None:
        """Show that a checkpoint is through: measured, failed, or done ``before``."""
        self._count += 1
        label, text = printable(label), printable(_shown(values))
        error = None if error is None else printable(error)
        if not before:
            self._measured += 1
            self._spent += time.monotonic() - self._begun
        if self._bar is not None:
            self._bar.update()
            if text:
                self._bar.set_postfix_str(text)
            if error is not None:
                self._bar.write(f"{self._prefix}{label}: failed: {error}", file=sys.stderr)
            return
        if before and error is None:
            return
        done = f"failed{' before' if before else ''}: {error}" if error is not None else text or "measured"
        print(f"{self._prefix}[{self._count}/{self._total}] {label}: {done}{self._left()}", flush=True)

    def postpone(self, label: str, trouble: str, pause: float | None) -> None:
        """Show that a checkpoint is tried again after a pause in seconds, or, without one, by the next sweep."""
        when = "left for the next sweep" if pause is None else f"again in {pause:.0f} s"
        self.say(f"{label}: {when}: {trouble}")

    def say(self, text: str) -> None:
        """Show a sentence beside the progress."""
        text = f"{self._prefix}{printable(text)}"
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def _left(self) -> str:
        left = self._total - self._count
        if not left or not self._measured:
            return ""
        seconds = self._spent / self._measured * left
        text = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
        return f"; about {text if seconds < 5400 else f'{seconds / 3600:.1f} h'} left"

    def expect(self, total: int) -> None:
        """Show another number of checkpoints in all."""
        self._total = total
        if self._bar is not None:
            self._bar.total = total
            self._bar.refresh()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.close()


def _shown(values: Mapping[str, float]) -> str:
    """Return loss and anisotropy, or else the first two metrics."""
    shown = [f"{name} {values[key]:.4f}" for key, name in _SHOWN.items() if key in values]
    if not shown:
        metrics = ((key, value) for key, value in values.items() if not key.endswith("_stderr"))
        shown = [f"{key} {value:.4f}" for key, value in list(metrics)[:2]]
    return ", ".join(shown)
