"""The arrays that a result file names. Imports neither lm_eval nor torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.harness.loose_json import as_dict, as_text
from lmsat_plugin.harness.result_files import parse_result_file, provenance_parts

if TYPE_CHECKING:
    import numpy as np


def arrays_of(file: Path, prefixes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the arrays whose names begin so, from beside the result of the probe that the first prefix names.

    ``arrays_of(file, ("loss/",))`` are those of lmsat_loss. In a tree that was moved they are sought beside the
    result file.

    Raises:
        LmsatError: For a file that names none of the probe, and for arrays that cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    probe = prefixes[0].partition("/")[0]
    parts = provenance_parts(parse_result_file(file) or {})
    part = next((part for part in parts if probe in as_dict(part.get("probes"))), {})
    name = as_text(part.get("arrays"))
    if name is None:
        raise LmsatError(
            f"lmsat_{probe} has left no arrays: run it again with arrays=FOLDER in --model_args, or in a sweep"
        )
    path = file.parent / name
    if not path.exists() and (beside := file.parent / Path(name).name).exists():
        path = beside
    try:
        with safe_open(path, framework="numpy") as stored:
            keys = [key for key in stored.keys() if key.startswith(prefixes)]  # noqa: SIM118
            return {key: stored.get_tensor(key) for key in keys}
    except (OSError, ValueError, SafetensorError) as error:
        raise LmsatError(
            f"the arrays {path} cannot be read ({first_sentence(error)}): restore them or run lmsat_{probe} again"
        ) from error
