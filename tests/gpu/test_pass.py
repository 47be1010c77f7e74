"""The pass on a GPU: nothing in it waits for the device, and what breaks a device is not tried."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from places import HELPERS
from synchronisation import Waits
from tiny_models import WINDOW, make_model

from lmsat_plugin import measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.measurement.forward import ForwardPass

STREAMING = ["loss", "anisotropy", "rank_head", "gradient_bottleneck"]
SETTINGS = {"max_tokens": 1000, "batch_size": 4, "ranks": [4, 48]}


@pytest.fixture
def watched(monkeypatch, on_gpu):
    """Have each batch of a pass raise where it would wait for the GPU; return the operations seen that would."""
    run_batch, seen = ForwardPass._run_batch, Waits()

    def run(self, *arguments) -> None:
        if on_gpu:
            torch.cuda.set_sync_debug_mode("error")
        try:
            with seen:
                run_batch(self, *arguments)
        finally:
            if on_gpu:
                torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(ForwardPass, "_run_batch", run)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["gpt_neox", "llama", "gemma2", "opt"])
def test_nothing_in_the_pass_waits_for_the_gpu(name, dtype, device, documents, tokenizer, watched):
    model = make_model(name).to(dtype).to(device)
    measure(model, STREAMING, corpus=documents, tokenizer=tokenizer, **SETTINGS)
    assert watched.batches >= 4
    assert not watched.operations


def test_the_profiler_sees_no_wait_either(device, on_gpu, documents, tokenizer, monkeypatch):
    """Its records are of the driver's calls, which the debug mode does not see all of."""
    model, profiles = make_model("llama").to(device), []
    run_share = ForwardPass._run_share

    def run(self, *arguments) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if on_gpu:
            torch.cuda.synchronize()
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profile:
            run_share(self, *arguments)
        profiles.append(profile)

    # Once before, since what is first made on a device waits for it.
    measure(model, STREAMING, corpus=documents, tokenizer=tokenizer, **SETTINGS)
    monkeypatch.setattr(ForwardPass, "_run_share", run)
    measure(model, STREAMING, corpus=documents, tokenizer=tokenizer, **SETTINGS)
    names = {event.key for profile in profiles for event in profile.key_averages()}
    # The profiler itself waits for the device once, at its end.
    waits = {"cudaStreamSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense", "aten::nonzero"}
    assert any("mm" in name for name in names)
    assert not names & waits


BEYOND = """
import sys, torch
sys.path[:0] = [{helpers!r}]
from tiny_models import WINDOW, make_model
from lmsat_plugin import measure
from lmsat_plugin.errors import LmsatError
import transformers

device = torch.device({device!r})
tokenizer = transformers.AutoTokenizer.from_pretrained({folder!r})
for name in ("gpt2", "opt", "gptj"):
    model = make_model(name).to(device)
    try:
        measure(model, ["loss"], corpus=["some words " * 500], tokenizer=tokenizer, max_length=2 * WINDOW)
    except LmsatError as error:
        assert "is beyond the" in str(error), error
    else:
        raise SystemExit("no error")
    assert float(torch.ones(3, device=device).sum()) == 3
"""


def test_positions_beyond_a_table_leave_the_gpu_as_it_was(device, tokenizer, tmp_path):
    """In a process of its own, which an assertion on the device would cost its GPU."""
    tokenizer.save_pretrained(tmp_path)
    script = BEYOND.format(helpers=str(HELPERS), device=device.type, folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]


def test_max_length_of_requests_is_checked_too(device, saved):
    lm = SaturationLM(saved(make_model("gpt2"), "gpt2"), device=device.type, max_length=3 * WINDOW)
    with pytest.raises(LmsatError, match="is beyond the"):
        lm._model_call(torch.ones(1, 2 * WINDOW, dtype=torch.long, device=device))
