"""What an error in a job means: trouble of the whole sweep, passing trouble, or the checkpoint's own failure."""

from __future__ import annotations

import traceback

from lmsat_plugin.errors import BrokenDeviceError, LmsatError, UnwritableError, first_sentence, wants_traceback
from lmsat_plugin.harness.shared_tasks import TaskError
from lmsat_plugin.model.memory import is_broken_device
from lmsat_plugin.passing import causes, passing
from lmsat_plugin.sweeps.launch import LaunchLostError


def raise_outside(error: Exception) -> None:
    """Raise what is no failure of the checkpoint's own: what may pass, and what would meet every checkpoint."""
    if isinstance(error, LaunchLostError):
        raise error
    if trouble := passing(error):
        raise trouble from error
    if isinstance(error, TaskError) or any(isinstance(each, UnwritableError) for each in causes(error)):
        raise error
    if any(map(is_broken_device, causes(error))):
        raise BrokenDeviceError(
            f"the GPU is in a broken state ({first_sentence(error)}): start the sweep again"
        ) from error


def reason_of(error: BaseException) -> str:
    """Return the sentence that is recorded of a failure."""
    if wants_traceback():
        traceback.print_exception(error)
    if isinstance(error, LmsatError):
        return str(error)
    # The engine notes which probe raised it. Other libraries' notes are whole paragraphs.
    where = "".join(f" {note}" for note in getattr(error, "__notes__", ()) if note.startswith("in the probe "))
    return f"{type(error).__name__} ({first_sentence(error)}){where}: LMSAT_DEBUG=1 shows where"
