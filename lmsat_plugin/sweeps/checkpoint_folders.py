"""Where the files of a sweep's checkpoints are: on disk, downloaded, converted, or averaged of others."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.sweeps.averages import Averages
from lmsat_plugin.sweeps.conversions import Conversions
from lmsat_plugin.sweeps.downloads import Downloads
from lmsat_plugin.sweeps.jobs import Job


class CheckpointFolders:
    """Gives the folder of each checkpoint, and deletes what was made for it when it is no longer needed.

    Args:
        private: The sweep's own folder, where converted and averaged checkpoints go.
        downloads: What fetches checkpoints of the Hub.
        keep: How many converted checkpoints, and how many averages, stay; None for all.
    """

    def __init__(self, private: Path, downloads: Downloads, keep: int | None) -> None:
        self.downloads = downloads
        self._conversions = Conversions(private / "converted", private / "conversion_logs", keep)
        self._averages = Averages(private / "averaged", keep, parts=self)

    def fetch(self, job: Job, noted: dict[str, Any], *, head_only: bool = False) -> Path:
        """Return the folder of a checkpoint for transformers, and keep it until `release`.

        Adds to ``noted`` how it was made. ``head_only`` leaves out what of a download the LM head does not need.
        Raises as `Downloads.fetch`, `Conversions.fetch` and `Averages.fetch`.
        """
        if job.checkpoint.parts:
            return self._averages.fetch(job, noted)
        if job.converts:
            return self._conversions.fetch(job, noted)
        return self.downloads.fetch(job.checkpoint, head_only=head_only)

    def release(self, job: Job) -> None:
        """Let go of a checkpoint's folder."""
        if job.checkpoint.on_hub:
            self.downloads.release(job.checkpoint)
        self._conversions.release(job.checkpoint)
        self._averages.release(job.checkpoint)

    def close(self) -> None:
        """End a conversion that runs; delete what is not needed and what dead processes have left."""
        self._conversions.stop()
        # What comes up here must not hide what has ended the sweep.
        with suppress(LmsatError, OSError):
            self.downloads.clean()
            self._conversions.clean()
            self._averages.clean()
