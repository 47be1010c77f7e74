"""Every way to a checkpoint whose files contradict each other gives the numbers of what transformers loads."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from evaluation import TASKS, evaluate, numbers, rolling_requests
from odd_folders import FOLDERS, untied_without_a_head
from safetensors.torch import load_file, save_file
from sweep_outputs import files_of
from tiny_models import ROWS

from lmsat_plugin import measure
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.checkpoint_evaluator import CheckpointEvaluator
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.model.checkpoint_files import weight_paths
from lmsat_plugin.model.computing_type import widen
from lmsat_plugin.model.loading import HeadNotFoundError, load_head, load_whole
from lmsat_plugin.sweeps.weights import read_ahead

PROBES = [task.removeprefix("lmsat_") for task in TASKS]


@pytest.fixture(scope="module")
def series(tmp_path_factory, tokenizer):
    """Return a folder with all odd folders."""
    parent, others = tmp_path_factory.mktemp("series"), tmp_path_factory.mktemp("made")
    for number, (name, make) in enumerate(FOLDERS.items()):
        make(others / name)
        (others / name).rename(parent / f"step{number}")
        tokenizer.save_pretrained(parent / f"step{number}")
    return parent


@pytest.fixture(scope="module")
def swept(series, tmp_path_factory, documents):
    """Return the values of two sweeps: of all tasks, and of the head alone."""
    place = tmp_path_factory.mktemp("swept")
    (place / "text.txt").write_text(documents[4])
    values = []
    for tasks in (TASKS, ["lmsat_head"]):
        config = place / f"{len(tasks)}.yaml"
        lines = [f"models: [{series}]", f"tasks: [{', '.join(tasks)}]", f"corpus: {place / 'text.txt'}", "device: cpu"]
        config.write_text("\n".join([*lines, f"output: {place / str(len(tasks))}"]))
        assert main(["sweep", str(config)]) == 0
        by_step: dict[str, dict] = {}
        for document in files_of(place / str(len(tasks))).values():
            step = document["config"]["lmsat"]["checkpoint"]["step"]
            by_step.setdefault(f"step{step}", {}).update(values_of(document))
        values.append(by_step)
    return (*values, place / "text.txt")


def values_of(results) -> dict[tuple[str, str], float]:
    return {key: value for key, value in numbers(results).items() if "stderr" not in key[1]}


def metrics_of(outcome) -> dict[tuple[str, str], float]:
    pairs = ((name.split("/"), value) for name, value in outcome.metrics.items())
    return {(task, f"{metric},none"): value for (task, metric), value in pairs}


@pytest.mark.parametrize("name", FOLDERS)
def test_all_ways_give_the_numbers_of_what_transformers_loads(name, series, swept, tokenizer):
    step = f"step{list(FOLDERS).index(name)}"
    whole, heads, text = swept
    loaded = transformers.AutoModelForCausalLM.from_pretrained(series / step)
    widen(loaded, torch.device("cpu"))
    expected = metrics_of(measure(loaded, PROBES, tokenizer=tokenizer, corpus=str(text)))
    assert len(expected) > 10
    assert metrics_of(measure(series / step, PROBES, corpus=str(text))) == expected
    results = evaluate("lmsat", model_args={"pretrained": str(series / step), "device": "cpu"}, corpus=str(text))
    assert values_of(results) == expected
    given = {"pretrained": loaded, "tokenizer": tokenizer}
    assert values_of(evaluate("lmsat", model_args=given, corpus=str(text))) == expected
    assert whole[step] == expected
    assert heads[step] == {key: value for key, value in expected.items() if key[0] == "lmsat_head"}


def refusals(folder, text) -> list[str]:
    """Return what each way to a folder says instead of measuring it."""
    sentences = []
    ways = (
        lambda: measure(folder, PROBES, corpus=str(text)),
        lambda: evaluate("lmsat", model_args={"pretrained": str(folder), "device": "cpu"}, corpus=str(text)),
        lambda: CheckpointEvaluator({}, {"device": "cpu"}).load(folder, name="m", revision="main"),
    )
    for way in ways:
        with pytest.raises(LmsatError) as caught:
            way()
        sentences.append(str(caught.value))
    return sentences


def test_untied_folder_without_a_head_is_refused_by_all(tmp_path, tokenizer, corpus_file):
    untied_without_a_head(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    [sentence] = set(refusals(tmp_path / "m", corpus_file))
    assert "lacks lm_head.weight, the LM head" in sentence
    assert "set tie_word_embeddings to true" in sentence
    with pytest.raises(HeadNotFoundError):
        load_head(tmp_path / "m")


def test_names_with_a_wrappers_prefix_are_said(tmp_path, tokenizer, corpus_file):
    FOLDERS["plain"](tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    tensors = load_file(file)
    for prefix in ("_orig_mod", "student.module"):
        save_file({f"{prefix}.{name}": tensor for name, tensor in tensors.items()}, file, {"format": "pt"})
        [sentence] = set(refusals(tmp_path / "m", corpus_file))
        assert f"names begin with '{prefix}.', which a wrapper has added; save them without" in sentence


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stale_index", "besides the weights that are loaded, as transformers does: it is not read; remove it"),
        ("sharded", "holds model-00001-of-00009.safetensors besides"),
        ("tied_with_another_head", "holds lm_head.weight besides the embedding"),
        ("second_file", ""),
        ("plain", ""),
    ],
)
def test_warning_says_what_was_taken(series, name, words, caplog):
    folder = series / f"step{list(FOLDERS).index(name)}"
    for load in (load_head, lambda folder: load_whole(transformers.AutoModelForCausalLM).from_pretrained(str(folder))):
        caplog.clear()
        try:
            load(folder)
        except HeadNotFoundError:
            assert name == "tied_with_another_head"
            continue
        ours = [record.getMessage() for record in caplog.records if record.name.startswith("lmsat_plugin")]
        assert len(ours) == bool(words)
        assert all(words in message for message in ours)


def test_hash_is_of_what_is_loaded(tmp_path):
    """Neither an old shard nor another format changes it, and every file that is read does."""
    for name in ("stale_index", "sharded", "pickled", "of_a_name_in_the_configuration"):
        folder = tmp_path / name
        FOLDERS[name](folder)
        before, read = read_ahead(folder), {path.name for path in weight_paths(folder)}
        for path in [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
            data = path.read_bytes()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            assert (read_ahead(folder) != before) == (path.name in read), path.name
            path.write_bytes(data)
        assert read_ahead(folder) == before


def test_arguments_that_name_other_weights_have_the_whole_model_loaded(tmp_path, tokenizer):
    FOLDERS["plain"](tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / "model.fp16.safetensors")
    evaluator = CheckpointEvaluator({"variant": "fp16"}, {"device": "cpu"})
    with pytest.raises(HeadNotFoundError, match="with variant the LM head may be another"):
        evaluator.load(tmp_path / "m", name="m", revision="main", head_only=True)
    evaluator.load(tmp_path / "m", name="m", revision="main")


ENCODER_DECODERS = {
    "t5": {"d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 1},
    "bart": {"d_model": 48, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64},
}


@pytest.mark.parametrize("kind", ENCODER_DECODERS)
def test_encoder_decoder_is_refused_by_all(kind, tmp_path, tokenizer, corpus_file):
    config = transformers.AutoConfig.for_model(kind, vocab_size=ROWS, **ENCODER_DECODERS[kind])
    transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    text = str(corpus_file)
    model_args = {"pretrained": str(tmp_path / "m"), "device": "cpu"}
    for way in (
        lambda: measure(tmp_path / "m", ["head"]),
        lambda: evaluate("lmsat", ["lmsat_head"], model_args=model_args, corpus=text),
        lambda: load_head(tmp_path / "m"),
    ):
        with pytest.raises(LmsatError, match=rf"is an encoder-decoder model \({kind}\): .*decoder-only.*leave it out"):
            way()


def test_encoder_is_refused_where_a_loss_is_asked_for(tmp_path, tokenizer, corpus_file):
    common = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    for causal in (False, True):
        config = transformers.BertConfig(vocab_size=ROWS, **common, max_position_embeddings=64, is_decoder=causal)
        folder = tmp_path / f"{causal}"
        transformers.BertLMHeadModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        assert measure(folder, ["head"]).metrics["lmsat_head/stable_rank"] > 1
        if causal:
            assert measure(folder, ["loss"], corpus=str(corpus_file), max_tokens=50).metrics["lmsat_loss/loss"] > 0
            continue
        with pytest.raises(LmsatError, match=r"is not causal: .*leave it out, or measure lmsat_head alone"):
            measure(folder, ["loss"], corpus=str(corpus_file))
        lm = SaturationLM(str(folder), device="cpu")
        with pytest.raises(LmsatError, match="is not causal"):
            lm.loglikelihood_rolling(rolling_requests(["Some text."]))


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_model_with_code_of_its_own(tmp_path, tokenizer):
    folder = tmp_path / "m"
    FOLDERS["plain"](folder)
    expected = measure(folder, ["head"], tokenizer=tokenizer).metrics
    tokenizer.save_pretrained(folder)
    (folder / "modeling_own.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": names}))
    with pytest.raises(LmsatError, match=r"contains custom code.*: pass trust_remote_code=True if you trust it"):
        measure(folder, ["head"])
    assert measure(folder, ["head"], trust_remote_code=True).metrics == expected
    for head_only in (True, False):
        evaluator = CheckpointEvaluator({"trust_remote_code": True}, {"device": "cpu"})
        evaluator.load(folder, name="m", revision="main", head_only=head_only)
        assert evaluator.lm is not None
        assert measure(evaluator.lm.model, ["head"], tokenizer=tokenizer).metrics == expected
