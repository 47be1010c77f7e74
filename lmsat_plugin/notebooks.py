"""The functions that notebooks call: what the commands of their names do, from Python."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import kind_of, user_path
from lmsat_plugin.results.framed import Answers
from lmsat_plugin.results.tree import Results
from lmsat_plugin.settings import closest

if TYPE_CHECKING:
    import pandas as pd

    from lmsat_plugin.analysis.analyses import Analyses
    from lmsat_plugin.analysis.comparison import Comparison
    from lmsat_plugin.analysis.emergence import DirectFit, Emergence
    from lmsat_plugin.analysis.learning import RunLearning
    from lmsat_plugin.analysis.saturation import Saturation
    from lmsat_plugin.analysis.scaling_laws import FittedLaw
    from lmsat_plugin.analysis.scaling_laws.isoflops import IsoFlops
    from lmsat_plugin.analysis.scaling_laws.run_curves import RunCurve
    from lmsat_plugin.ranking.leaderboard import Leaderboard

    Paths = str | Path | Sequence[str | Path]

logger = logging.getLogger(__name__)

_CONFIG_SUFFIXES = (".yaml", ".yml", ".json")
_FunctionT = TypeVar("_FunctionT", bound=Callable[..., Any])
_FLAG = re.compile(r"--([a-z][a-z-]*)(?: ([A-Z][A-Z_=]*)(?![a-z])| (end|tokens|compute)\b(?= or|,|$))?")
"""An option in a sentence, with the name of what it takes, or one of the words that it takes."""
_OF_READING = ("tokens_per_step", "step_pattern")
"""What is given where results are read."""


def _in_python(function: _FunctionT) -> _FunctionT:
    """Let a function refuse keywords that it does not know, and name keywords where errors name a command's options."""
    known = {
        name: each for name, each in inspect.signature(function).parameters.items() if each.kind != each.VAR_KEYWORD
    }

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if len(known) == len(inspect.signature(function).parameters):
            _check_keywords(f"{function.__name__}()", named, known)
        try:
            return function(*arguments, **named)
        except LmsatError as error:
            error.args = (_FLAG.sub(_keyword, str(error)),)
            raise

    return call  # type: ignore[return-value]


def _keyword(flag: re.Match[str]) -> str:
    """Return an option of a command as Python has it; as it is where it is none of these functions'."""
    option, placeholder, word = flag.groups()
    name = option.replace("-", "_")
    if name in _OF_READING:
        return f"lmsat_plugin.Results.read(FOLDER, {name}={placeholder or '...'}) as the data"
    if name not in _KEYWORDS:
        return flag[0]
    value = repr(placeholder) if placeholder and "=" in placeholder else placeholder
    return f"{name}={value or repr(word)}" if value or word else name


_KEYWORDS = ("corpus", "variant", "task", "metric", "given", "min_step", "at", "model", "robust", "loss", "tolerance")


def _check_keywords(name: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise `LmsatError` for a keyword that is not known."""
    for key in given:
        if key not in known:
            meant = closest(key, known)
            hint = f"did you mean {meant}?" if meant else f"it takes {', '.join(known)}"
            raise LmsatError(f"{name} takes no '{key}': {hint}")


def _options(name: str, given: Mapping[str, Any], analysis: Callable[..., Any]) -> dict[str, Any]:
    """Return the options of an analysis. Raises `LmsatError` for one that neither it nor the function has."""
    _, *parameters = inspect.signature(analysis).parameters
    _check_keywords(name, given, dict.fromkeys((*parameters, "corpus", "variant")))
    return dict(given)


@_in_python
def sweep(
    models: str | Path | Sequence[str | Path | Mapping[str, Any]],
    tasks: str | Sequence[str] | None = None,
    *,
    output: str | Path | None = None,
    corpus: str | Sequence[str] | None = None,
    name: str | None = None,
    force: bool = False,
    retry_failed: bool = False,
    **settings: Any,
) -> Results:
    """Measure series of checkpoints in this process, as ``lmsat sweep`` does; return all results in their folder.

    What is measured already is not measured again. A checkpoint that cannot be measured is a warning in the log.

    Args:
        models: Folders of checkpoints and names of the Hub; models with keys of their own, as in a configuration; or
            one configuration's file, of which the other arguments replace keys.
        tasks: What to measure (default: lmsat_loss, lmsat_anisotropy and lmsat_head).
        output: Where the results go (default: beside the folder, or in results/).
        corpus: The text, or several (default: the built-in sample).
        name: What the model is called in the results.
        force: Whether to measure again what is measured.
        retry_failed: Whether to measure again what has failed.
        settings: Other keys of a configuration, such as ``max_tokens``, ``device`` and ``model_args``.

    Raises:
        LmsatError: For a configuration that cannot be run, and where no result is there at the end.

    Example:
        >>> results = lmsat_plugin.sweep("run", ["lmsat_head"], output="measured", device="cpu")
        [1/2] run step1: ...
        >>> results.table.task.unique().tolist()
        ['lmsat_head']
    """
    import lmsat_autoload
    from lmsat_plugin.settings import parse_settings
    from lmsat_plugin.sweeps.config import Options, SweepConfig, load_config
    from lmsat_plugin.sweeps.from_names import DEFAULT_TASKS, config_values
    from lmsat_plugin.sweeps.local import run_sweep

    lmsat_autoload.install()
    given = {"tasks": tasks, "corpora": corpus, "output": None if output is None else str(output), **settings}
    given = {key: value for key, value in given.items() if value is not None}
    listed: list[Any] = [models] if isinstance(models, str | Path) else list(models)
    file = user_path(listed[0]) if len(listed) == 1 and isinstance(listed[0], str | Path) else None
    if file is not None and file.suffix in _CONFIG_SUFFIXES and kind_of(file) != "folder":
        config = load_config(file, given)
    elif any(isinstance(each, Mapping) for each in listed):
        entries = [dict(each) if isinstance(each, Mapping) else {"pretrained": str(each)} for each in listed]
        if "output" not in given:
            raise LmsatError("models with keys of their own have no folder of results by default: add output=FOLDER")
        base = {"tasks": list(DEFAULT_TASKS), **given}
        config = parse_settings(SweepConfig, {"models": entries, **base})
    else:
        config = parse_settings(SweepConfig, {**config_values([str(each) for each in listed], name=name), **given})
    summary = run_sweep(config, Options(force=force, retry_failed=retry_failed))
    for label, reason in {**summary.failed, **summary.left}.items():
        logger.warning("%s is not measured: %s", label, reason)
    return Results.read(config.output)


@_in_python
def report(
    data: Results | Paths,
    output: str | Path | None = None,
    *,
    corpus: str | Sequence[str] | None = None,
    variant: str | None = None,
) -> Path:
    """Write the page with verdicts, figures and tables, as ``lmsat report`` does; return its path.

    Args:
        data: Results, or folders with result files.
        output: Where the page goes (default: the folder ``report`` in the one folder that is given, else here).
        corpus: Names or patterns of the corpora to take.
        variant: The one variant to take, as the column of results names it.

    Raises:
        LmsatError: For results on several texts of which none is chosen, and for a folder that cannot be written.

    Example:
        >>> lmsat_plugin.report("results", "page").as_posix()
        'page/index.html'
    """
    from lmsat_plugin.page.report import write_report

    place = user_path(output) if output is not None else Path("report")
    if output is None and isinstance(data, str | Path) and kind_of(user_path(data)) == "folder":
        place = user_path(data) / "report"
    return write_report(_analyses(data, corpus, variant), place)


@_in_python
def leaderboard(
    data: Results | Paths, *, corpus: str | Sequence[str] | None = None, variant: str | None = None
) -> Leaderboard:
    """Rank models by their last losses, as ``lmsat leaderboard`` does; ties share a rank.

    The arguments and errors are those of `report`.

    Example:
        >>> board = lmsat_plugin.leaderboard("results")
        >>> board.to_frame()[["rank", "model"]].values.tolist()
        [[1, 'large'], [2, 'small']]
    """
    from lmsat_plugin.ranking.leaderboard import leaderboard_of

    return leaderboard_of(_analyses(data, corpus, variant))


@_in_python
def saturation(
    data: Results | pd.DataFrame | Paths,
    task: str | None = None,
    metric: str | None = None,
    *,
    corpus: str | Sequence[str] | None = None,
    variant: str | None = None,
    **options: Any,
) -> Answers[Saturation]:
    """Return a verdict on each series, as ``lmsat saturation`` does: does it saturate, plateau, or improve?

    ``options`` are those of `lmsat_plugin.analysis.find_saturation`, and ``corpus`` and ``variant`` as in `report`.

    Raises:
        LmsatError: For data without the metric, for too many series of one name, and for bad options.

    Example:
        >>> for verdict in lmsat_plugin.saturation("results"):
        ...     print(verdict.model, verdict.verdict)
        large improving
        small saturates
    """
    from lmsat_plugin.analysis import find_saturation

    options = _options("saturation()", options, find_saturation)
    return Answers(find_saturation(_data(data, corpus, variant), task, metric, **options))


@_in_python
def emergence(
    data: Results | pd.DataFrame | Paths,
    *,
    corpus: str | Sequence[str] | None = None,
    variant: str | None = None,
    **options: Any,
) -> Answers[Emergence]:
    """Return for each score whether it emerges below a loss, as ``lmsat emergence`` does.

    ``options`` are those of `lmsat_plugin.analysis.find_emergence`, and ``corpus`` and ``variant`` as in `report`.

    Raises:
        LmsatError: For data without lmsat_loss beside other tasks.

    Example:
        >>> [(each.task, each.metric) for each in lmsat_plugin.emergence("results", task="piqa", metric="acc")]
        [('piqa', 'acc')]
    """
    from lmsat_plugin.analysis import find_emergence

    options = _options("emergence()", options, find_emergence)
    return Answers(find_emergence(_data(data, corpus, variant), **options))


@_in_python
def fit(
    law: str,
    data: Results | pd.DataFrame | Paths,
    given: Mapping[str, float] | None = None,
    *,
    corpus: str | Sequence[str] | None = None,
    variant: str | None = None,
    **options: Any,
) -> FittedLaw | IsoFlops | Answers[RunCurve] | Answers[DirectFit]:
    """Fit a scaling law, as ``lmsat fit`` does; its `to_frame` has a row a constant.

    ``curve`` returns the learning curve of each run, ``isoflop`` the size of least loss at each compute, and ``direct``
    the law of each benchmark's scores. ``options`` are those of `lmsat_plugin.analysis.fit`, and of `fit_curves`,
    `fit_isoflops` and `fit_direct` beside it; ``corpus`` and ``variant`` are as in `report`.

    Raises:
        LmsatError: For an unknown law, and for too few points.

    Example:
        >>> import pandas as pd
        >>> rows = [{"n_params": n, "tokens": 10**9, "loss": 2 + 400 * n**-0.3} for n in 10 ** np.arange(6, 12)]
        >>> law = lmsat_plugin.fit("kaplan-n", pd.DataFrame(rows), repetitions=0)
        >>> law.to_frame().columns[:2].tolist()
        ['constant', 'value']
    """
    from lmsat_plugin import analysis
    from lmsat_plugin.analysis.scaling_laws import LAWS

    others: dict[str, Callable[..., Any]] = {
        "curve": analysis.fit_curves,
        "isoflop": analysis.fit_isoflops,
        "direct": analysis.fit_direct,
    }
    if law in LAWS:
        _, *taken = inspect.signature(analysis.fit).parameters
        _check_keywords("fit()", options, dict.fromkeys((*taken, "corpus", "variant")))
        return analysis.fit(law, _data(data, corpus, variant), given, **options)
    if law not in others:
        raise LmsatError(f"'{law}' is not a law: give one of {', '.join((*LAWS, *others))}")
    if given is not None:
        raise LmsatError(f"{law} takes no given: leave it out")
    found = others[law](_data(data, corpus, variant), **_options(f"fit('{law}')", options, others[law]))
    return Answers(found) if isinstance(found, list) else found


@_in_python
def learning(
    data: Results | Paths,
    *,
    corpus: str | Sequence[str] | None = None,
    variant: str | None = None,
    repetitions: int = 200,
    seed: int = 0,
) -> Answers[RunLearning]:
    """Return for each run how much of the loss's change cancels between tokens, as ``lmsat learning`` does.

    ``repetitions`` and ``seed`` are those of `lmsat_plugin.analysis.find_learning`, ``corpus`` and ``variant`` as in
    `report`.

    Raises:
        LmsatError: Without lmsat_loss and its arrays.

    Example:
        >>> [run] = lmsat_plugin.learning("token-losses", repetitions=0)
        >>> run.model, len(run.changes)
        ('m', 2)
    """
    from lmsat_plugin.analysis import find_learning

    results = _data(_results(data), corpus, variant)
    return Answers(find_learning(results, repetitions=repetitions, seed=seed))  # type: ignore[arg-type]


@_in_python
def compare(*given: Results | str | Path | tuple[Results | str | Path, str], at: Any = "end") -> Comparison:
    """Compare models with the first of them, as ``lmsat compare`` does; the result's `to_frame` has a row a metric.

    Args:
        given: Results of one model each, or their folders; or pairs of results and the name of a model in them.
        at: Which checkpoints are compared: ``end``, ``tokens`` or ``compute``, see `lmsat_plugin.analysis.compare`.

    Raises:
        LmsatError: For fewer than two models, and for a name that is not there.

    Example:
        >>> found = lmsat_plugin.compare(("results", "small"), ("results", "large"))
        >>> "lmsat_loss" in found.to_frame().task.tolist()
        True
    """
    from lmsat_plugin.analysis import compare as compare_models

    read = [(_results(each[0]), each[1]) if isinstance(each, tuple) else _results(each) for each in given]
    return compare_models(*read, at=at)


def _results(data: Results | Paths) -> Results:
    return data if isinstance(data, Results) else Results.read(data)


def _data(
    data: Results | pd.DataFrame | Paths, corpus: str | Sequence[str] | None, variant: str | None
) -> Results | pd.DataFrame:
    import pandas as pd

    corpora = [corpus] if isinstance(corpus, str) else corpus
    if isinstance(data, str | Path) and user_path(data).suffix.lower() == ".csv":
        from lmsat_plugin.analysis.input_tables import read_csv
        from lmsat_plugin.results.other_tools.tables import is_log

        data = data if is_log(user_path(data)) else read_csv(user_path(data))
    if isinstance(data, pd.DataFrame):
        from lmsat_plugin.analysis.input_tables import of_corpora, of_variant

        data = data if corpora is None else of_corpora(data, corpora)
        return data if variant is None else of_variant(data, variant)
    results = _results(data)
    return results if corpora is None and variant is None else results.select(corpora, variant)


def _analyses(data: Results | Paths, corpus: str | Sequence[str] | None, variant: str | None) -> Analyses:
    from lmsat_plugin.analysis.analyses import Analyses

    return Analyses.of(_results(data), [corpus] if isinstance(corpus, str) else corpus, variant)
