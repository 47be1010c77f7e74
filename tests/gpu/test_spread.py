"""Models spread over devices, and sums over the processes of a group that NCCL connects."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
from accelerate import dispatch_model
from evaluation import rolling_requests
from places import HELPERS
from tiny_models import make_model

from lmsat_plugin import measure
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.model.restricted_head import truncate_head

SETTINGS = {"max_tokens": 600, "batch_size": 4}
MAPS = {
    "llama": {"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": 0, "model.layers.2": 1, "model.norm": 1,
              "model.rotary_emb": 0, "lm_head": 1},
    "gpt2": {"transformer.wte": 0, "transformer.wpe": 0, "transformer.drop": 0, "transformer.h.0": 0,
             "transformer.h.1": 1, "transformer.h.2": 1, "transformer.ln_f": 1, "lm_head": 0},
}  # fmt: skip
"""Of each module, whether it is on the device, 0, or on the CPU, 1. GPT-2's head is tied to its embedding."""


@pytest.mark.parametrize("head_rank", [None, 8])
@pytest.mark.parametrize("name", MAPS)
def test_last_layers_on_the_cpu(name, head_rank, device, documents, tokenizer):
    """The head is replaced where it is, and the states are brought to it."""
    model = make_model(name)
    places = {part: [device.type, "cpu"][place] for part, place in MAPS[name].items()}
    spread = dispatch_model(copy.deepcopy(model), places, main_device=device.type, force_hooks=True)
    if head_rank is not None:
        for each in (model, spread):
            truncate_head(each, head_rank)
    expected, found = (
        measure(each, ["loss", "anisotropy", "head"], corpus=documents, tokenizer=tokenizer, **SETTINGS).metrics
        for each in (model, spread)
    )
    for metric, value in expected.items():
        assert found[metric] == pytest.approx(value, rel=1e-4), metric


@pytest.mark.parametrize("name", ["gpt_neox", "gpt2"])
def test_parallelize(name, device, saved, documents):
    """Over all GPUs there are; with one, in the same way."""
    folder, texts = saved(make_model(name), name), [text for text in documents if text]
    answers = []
    for arguments in ({"parallelize": True}, {}):
        lm = SaturationLM(folder, device=device.type, dtype="float32", head_rank=8, batch_size=4, **arguments)
        answers.append(lm.loglikelihood_rolling(rolling_requests(texts), disable_tqdm=True))
    assert answers[0] == pytest.approx(answers[1], rel=1e-5)


ONE_PROCESS = """
import os, sys, torch, transformers
sys.path[:0] = [{helpers!r}]
from tiny_models import make_model
from lmsat_plugin import measure
from lmsat_plugin.measurement import engine
from lmsat_plugin.measurement.training_stream import FinalStateStream
from lmsat_plugin.probes.rank_head.probe import second_moment

device = torch.device({device!r})
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", RANK="0", WORLD_SIZE="1")
store = torch.distributed.HashStore()
settings = dict(
    corpus=["The quick brown fox, line %d. " % i * 20 for i in range(40)], max_tokens=600, batch_size=4, ranks=[4],
    tokenizer=transformers.AutoTokenizer.from_pretrained({folder!r}), train_tokens=1500, batch_tokens=500,
    noise_tokens=256, noise_sequence=16,
)
probes = ["loss", "anisotropy", "rank_head", "gradient_noise"]
alone = measure(make_model("gpt_neox").to(device), probes, **settings).metrics

torch.distributed.init_process_group({backend!r}, store=store, rank=0, world_size=1)
context = engine.ProbeContext
engine.ProbeContext = lambda **values: context(**{{**values, "synchronise": True}})
together = measure(make_model("gpt_neox").to(device), probes, **settings).metrics
assert alone.keys() == together.keys()
for name, value in alone.items():
    assert abs(together[name] - value) <= 1e-6 * abs(value) + 1e-9, (name, value, together[name])

class Nothing:
    def run(self, callbacks):
        callbacks.start()

class Stream(FinalStateStream):
    def rounds(self, tokens, seed):
        return [[type("Window", (), {{"scored": 5, "__len__": lambda self: 5}})()]]

    def states(self, windows):
        return FinalStateStream.states(self, [])

stream = Stream(corpus=None, forward=lambda windows: Nothing(), width=48, device=device)
moment = second_moment(stream, 48, True)
assert moment.shape == (48, 48) and moment.device.type == device.type and not moment.any()
torch.distributed.destroy_process_group()
"""


def test_one_process_that_synchronises(device, on_gpu, tokenizer, tmp_path):
    """Every sum goes through a collective, and one of an empty share is of the device that the backend takes."""
    tokenizer.save_pretrained(tmp_path)
    backend = "nccl" if on_gpu else "gloo"
    script = ONE_PROCESS.format(helpers=str(HELPERS), device=device.type, folder=str(tmp_path), backend=backend)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
