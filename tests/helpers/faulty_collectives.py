"""``python tests/helpers/faulty_collectives.py FAULT ARGUMENTS``: a command of lmsat that goes wrong at a collective.

The fault is JSON: the rank, the kind of collective and its number, and whether the process ``dies`` or ``raises``.
Without one, the collectives of each kind are counted in a file.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import torch.distributed
from accelerate.state import AcceleratorState

from lmsat_plugin.cli.main import main
from lmsat_plugin.sweeps import launch, lifeline

KINDS = ("all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "barrier", "broadcast")
KINDS = (*KINDS, "broadcast_object_list", "gather_object", "new_group")

told = json.loads(sys.argv[1])
counts: Counter[str] = Counter()
inside = False


def faulty(kind: str):
    """Return a collective that goes wrong where it was told."""
    call = getattr(torch.distributed, kind)

    def collective(*arguments, **keywords):
        global inside
        # Those of objects are made of others.
        if inside:
            return call(*arguments, **keywords)
        counts[kind] += 1
        if (told.get("kind"), told.get("number"), str(told.get("rank"))) == (
            kind,
            counts[kind],
            os.environ.get("RANK"),
        ):
            if told["way"] == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("no such thing here")
        inside = True
        try:
            return call(*arguments, **keywords)
        finally:
            inside = False

    return collective


for name in KINDS:
    setattr(torch.distributed, name, faulty(name))
lifeline.GRACE_SECONDS = 0.5
launch._JOIN = datetime.timedelta(seconds=5)
# The process that this one was forked from has noted that it is alone.
AcceleratorState._reset_state(reset_partial_state=True)
code = main(sys.argv[2:])
Path(told["log"]).write_text(json.dumps(counts))
raise SystemExit(code)
