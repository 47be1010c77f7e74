"""The n-gram dimension of a corpus: counting, the greatest singular values and all of them, against general tools.

The text is real: the docstrings of the standard library and of all installed packages, each once, some 13 million
tokens of a byte-level BPE of 32,000 tokens trained on it. It differs between machines, and is technical English
with more repetition than a corpus for pretraining has. The first run takes minutes to read and tokenise it.

Counting: tokens a second of CPU time, in memory and through a file. To reach: 2 million.

The 1,000 greatest singular values: 2 million tokens, against scipy's `svds` (ARPACK, as it is by default) on lmsat's
own merged matrix, which has far fewer rows than W; W itself would take the rival longer. It runs once, for it takes
minutes. To reach: 5 times faster, no W-error further apart than 1e-4. Then all tokens, without the rival: the bound
of the W-error, and the peak memory of counting and decomposing in a process of its own. To reach: 1e-4 and 8 GB.

All singular values: W of 10,000 tokens, dense, in LAPACK. To reach: no W-error further apart than 1e-8.
"""

from __future__ import annotations

import ast
import contextlib
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING

import common
import numpy as np
from loss_memory_speed import _kibibytes
from scipy.sparse.linalg import svds
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lmsat_plugin.analysis.rank_needed import w_error
from lmsat_plugin.ngrams import records, spectrum
from lmsat_plugin.ngrams.counting import NgramCounts, count_ngrams
from lmsat_plugin.ngrams.spectrum import ngram_spectrum
from lmsat_plugin.text.corpora import CorpusSettings, sample

if TYPE_CHECKING:
    from collections.abc import Iterator

ORDER = 5


def docstrings() -> Iterator[str]:
    """Yield each module's docstrings that no module before has."""
    seen: set[str | None] = {None}
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for root in ("stdlib", "purelib"):
        for path in sorted(Path(sysconfig.get_path(root)).rglob("*.py")):
            with contextlib.suppress(SyntaxError, ValueError):
                nodes = ast.walk(ast.parse(path.read_bytes()))
                found = {ast.get_docstring(node) for node in nodes if isinstance(node, kinds)} - seen
                seen |= found
                text = "\n\n".join(sorted(text for text in found if text))
                yield text.encode("utf-8", "replace").decode()


def corpus(quick: bool) -> tuple[list[np.ndarray], int]:
    """Return tokenised documents and the size of the vocabulary."""
    vocab_size = 4000 if quick else 32_000

    def build(folder: Path) -> None:
        texts = [text for text in (sample(CorpusSettings()) if quick else docstrings()) if text]
        np.random.default_rng(0).shuffle(texts)
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
        core.train_from_iterator(texts[: len(texts) // 2], trainer)
        ids = [encoding.ids for encoding in core.encode_batch_fast(texts)]
        np.savez(folder / "tokens.npz", tokens=np.concatenate(ids), lengths=[len(part) for part in ids])

    stored = np.load(common._cached(f"ngrams-{vocab_size}", build) / "tokens.npz")
    return np.split(stored["tokens"].astype(np.int32), np.cumsum(stored["lengths"])[:-1]), vocab_size


def first(documents: list[np.ndarray], tokens: int) -> list[np.ndarray]:
    """Return as many documents as have about so many tokens."""
    return documents[: 1 + int(np.searchsorted(np.cumsum([len(document) for document in documents]), tokens))]


def counting_rows(documents: list[np.ndarray], vocab_size: int) -> list[common.Row]:
    rows = []
    in_memory = records._IN_MEMORY
    for label, most in (("in memory", 1 << 62), ("through a file", 0)):
        records._IN_MEMORY = most
        start = time.process_time()
        counts = count_ngrams(documents, ORDER, vocab_size)
        rate = counts.tokens / (time.process_time() - start)
        rows.append(
            common.Row(
                f"counting {counts.tokens:,} tokens, {counts.contexts:,} contexts, {label}: tokens/s",
                f"{rate:,.0f}",
                "-",
                rate,
                at_least=2e6,
            )
        )
    records._IN_MEMORY = in_memory
    return rows


def greatest_rows(documents: list[np.ndarray], vocab_size: int, k: int) -> list[common.Row]:
    counts = count_ngrams(documents, ORDER, vocab_size)
    single = np.sqrt(counts.single_contexts_V)
    branching = spectrum._frequencies(counts.branching_BV, weighted=False)
    columns = np.unique(branching.indices)
    merged = spectrum._merged(branching[:, columns], single[columns])
    alone = np.delete(single, columns)
    found = {}

    def ours() -> None:
        found["lmsat"] = ngram_spectrum(counts, dimensions=k).w_error

    def rival() -> None:
        s = svds(merged, k, return_singular_vectors=False, rng=np.random.default_rng(0))
        squares = np.sort(np.concatenate([s, alone]))[::-1][:k] ** 2
        total = (merged.data**2).sum() + (alone**2).sum()
        found["svds"] = np.sqrt(1 - np.cumsum(squares) / total)

    times = {"lmsat": common.seconds(ours), "svds": common.seconds(rival)}
    label = f"{k:,} of {merged.shape[1]:,} singular values, {counts.tokens:,} tokens"
    return [
        common.Row(
            f"{label}: times as fast",
            f"{times['lmsat']:.1f} s",
            f"svds {times['svds']:.1f} s",
            times["svds"] / times["lmsat"],
            at_least=5.0,
        ),
        common.Row(
            f"{label}: largest difference of W-errors",
            f"{found['lmsat'][-1]:.8f}",
            f"svds {found['svds'][-1]:.8f}",
            float(abs(found["lmsat"] - found["svds"]).max()),
            at_most=1e-4,
        ),
    ]


def decompose(quick: bool, k: int) -> tuple[NgramCounts, spectrum.NgramSpectrum, float, float]:
    """Return what is found in all tokens, the seconds it took, and the process' peak memory in GB."""
    spectrum._WHOLE = 0
    documents, vocab_size = corpus(quick)
    start = common.clock()
    counts = count_ngrams(documents, ORDER, vocab_size)
    found = ngram_spectrum(counts, dimensions=k)
    seconds = common.clock() - start
    return counts, found, seconds, _kibibytes("VmHWM") * 1024 / 1e9


def all_tokens_rows(quick: bool, k: int) -> list[common.Row]:
    counts, found, seconds, memory = common.in_child(decompose, quick, k)
    label = f"{k:,} singular values, {counts.tokens:,} tokens"
    return [
        common.Row(f"{label}: seconds, counting included", f"{seconds:.1f} s", "-"),
        common.Row(
            f"{label}: bound of the W-error", f"{found.w_error[-1]:.6f}", "-", found.w_error_bound, at_most=1e-4
        ),
        common.Row(f"{label}: peak memory, GB", f"{memory:.2f}", "-", memory, at_most=8.0),
    ]


def whole_row(documents: list[np.ndarray], order: int, vocab_size: int) -> common.Row:
    counts = count_ngrams(documents, order, vocab_size)
    matrix = np.zeros((counts.contexts, vocab_size))
    single = np.repeat(np.arange(vocab_size), counts.single_contexts_V)
    matrix[np.arange(len(single)), single] = 1
    matrix[len(single) :] = counts.branching_BV.toarray() / counts.branching_BV.sum(axis=1)[:, None]
    matrix = matrix[:, matrix.any(0)]
    found = {}
    ours = common.seconds(lambda: found.update(lmsat=ngram_spectrum(counts).w_error))
    lapack = common.seconds(lambda: found.update(lapack=w_error(np.linalg.svd(matrix, compute_uv=False))))
    known = len(found["lapack"])
    return common.Row(
        f"W of {order}-grams, {matrix.shape[0]:,} x {matrix.shape[1]:,}: largest difference of W-errors",
        f"{ours:.2f} s",
        f"LAPACK {lapack:.2f} s",
        float(abs(found["lmsat"][:known] - found["lapack"]).max()),
        at_most=1e-8,
    )


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    documents, vocab_size = corpus(quick)
    k = 100 if quick else 1000
    rows = counting_rows(documents, vocab_size)
    whole = spectrum._WHOLE
    spectrum._WHOLE = 0
    rows += greatest_rows(first(documents, 100_000 if quick else 2_000_000), vocab_size, k)
    spectrum._WHOLE = whole
    rows += all_tokens_rows(quick, k)
    few = first(documents, 3000 if quick else 10_000)
    rows += [whole_row(few, order, vocab_size) for order in (2, ORDER)]
    return common.report("N-grams; ratio = what the target is about", rows)


if __name__ == "__main__":
    raise SystemExit(main())
