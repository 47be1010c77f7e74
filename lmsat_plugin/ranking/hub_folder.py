"""A leaderboard as a folder that is a data set of the Hub, with the files that the Hub's leaderboards read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.checkpoint_values import at_the_end
from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import PART, check_writable, kind_of, remove_strays, replacing, safe_name, write_atomically
from lmsat_plugin.ranking.formats import as_csv, as_markdown
from lmsat_plugin.ranking.leaderboard import Leaderboard
from lmsat_plugin.ranking.rows import last_checkpoints, last_losses, ordered, values_at
from lmsat_plugin.results.array_files import array_path
from lmsat_plugin.results.failures import FAILURES
from lmsat_plugin.results.series import PARTS

_BENCHMARKS = {
    ("gsm8k", "exact_match"): ("openai/gsm8k", "gsm8k"),
    ("mmlu_pro", "exact_match"): ("TIGER-Lab/MMLU-Pro", "mmlu_pro"),
}
"""By lm-eval's task and metric: data set and task of the Hub's benchmark, whose scores are in per cent."""


def write_hub_folder(board: Leaderboard, analyses: Analyses, folder: Path) -> None:
    """Write a data set's card, its tables, and the result files of the ranked checkpoints.

    ``README.md`` has the leaderboard and names the data files: ``leaderboard.parquet``, with a ``.csv`` beside it, and
    ``results.parquet``, every value at the ranked checkpoints. ``results/ORG/MODEL/results_DATE.json`` are lm-eval's
    own files with lmsat's arrays, but without samples, in the layout of the Open LLM Leaderboard's results.
    ``eval_results/ORG/MODEL/.eval_results/*.yaml`` are for the repositories of models that have a score of a benchmark
    registered on the Hub, see https://huggingface.co/docs/hub/eval-results.

    Raises:
        LmsatError: If the folder cannot be written.
    """
    table, _ = ordered(analyses.table)
    results = values_at(table, at_the_end(last_checkpoints(table, last_losses(table))))
    check_writable(folder)
    remove_strays(folder, f"**/.*{PART}")
    rows = pd.DataFrame(list(board.rows))
    write_atomically(folder / "leaderboard.csv", as_csv(board).encode("utf-8"))
    write_atomically(folder / "leaderboard.parquet", rows.to_parquet(index=False))
    write_atomically(folder / "results.parquet", results.drop(columns=[*PARTS, "group"]).to_parquet(index=False))
    for (model, path), _ in results.groupby(["model", "path"]):
        file = analyses.results.files[str(path)]
        if file.path.name == FAILURES:
            continue
        arrays = (array_path(file.path, notes) for notes in file.provenance)
        for source in (*(path for path in arrays if path is not None and kind_of(path) == "file"), file.path):
            with replacing(folder / "results" / _model_folder(str(model)) / source.name) as temporary:
                shutil.copyfile(source, temporary)
    for name, entry in _eval_results(results).items():
        write_atomically(folder / "eval_results" / name, entry)
    write_atomically(folder / "README.md", _card(board, len(results)).encode("utf-8"))


def push(folder: Path, repository: str, api: Any = None) -> None:
    """Upload a folder to a data set of the Hub, which is created if it does not exist, through an ``HfApi``.

    Raises:
        LmsatError: If the Hub refuses it, or cannot be reached.
    """
    from huggingface_hub import HfApi

    from lmsat_plugin.hub import hub_errors

    hub = HfApi() if api is None else api
    try:
        with hub_errors(repository):
            hub.create_repo(repository, repo_type="dataset", exist_ok=True)
            hub.upload_folder(
                repo_id=repository,
                folder_path=folder,
                repo_type="dataset",
                commit_message="Update the leaderboard",
                ignore_patterns=[f"*{Path(PART).suffix}"],
            )
    except LmsatError as error:
        raise LmsatError(
            f"{folder} cannot be pushed to {repository} ({first_sentence(error.__cause__ or error)}): `hf auth login` "
            "with a token that may write it, check the connection, or correct ORG/NAME"
        ) from error


def _model_folder(model: str) -> str:
    """Return a model's folder, ``ORG/MODEL``. The name comes from outside and may hold anything."""
    return "/".join(safe_name(part) for part in model.split("/")[-2:])


def _eval_results(results: pd.DataFrame) -> dict[str, bytes]:
    """Return the files for models' repositories by path, one for each variant of a score."""
    import yaml

    files: dict[str, bytes] = {}
    for row in results.to_dict("records"):
        benchmark = _BENCHMARKS.get((row["task"], row["metric"]))
        # Only ORG/MODEL without a variant names a repository, and only of a model that is one series.
        parts = (row["variant"], row["branch"], row["replicate"])
        if benchmark is None or row["model"].count("/") != 1 or any(isinstance(part, str) for part in parts):
            continue
        shots = "" if pd.isna(row["num_fewshot"]) else f"{row['num_fewshot']}-shot, "
        entry = {
            "dataset": {"id": benchmark[0], "task_id": benchmark[1]},
            "value": round(100 * row["value"], 2),
            **({} if pd.isna(row["date"]) else {"date": str(row["date"].date())}),
            "notes": f"{shots}filter {row['filter']}, lm-eval",
        }
        name = f"{_model_folder(row['model'])}/.eval_results/{safe_name(row['task'] + '_' + row['filter'])}.yaml"
        files[name] = yaml.safe_dump([entry], sort_keys=False).encode("utf-8")
    return files


def _card(board: Leaderboard, n_results: int) -> str:
    import yaml

    files = {"leaderboard": "leaderboard.parquet", "results": "results.parquet"}
    matter = {
        "pretty_name": "Language models at their last checkpoints",
        "tags": ["leaderboard", "evaluation", "lm-eval", "lmsat"],
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": path}]} for name, path in files.items()
        ],
    }
    columns = "".join(f"- `{column.name}`: {column.title_with_unit}; {column.about}.\n" for column in board.columns)
    return (
        f"---\n{yaml.safe_dump(matter, sort_keys=False)}---\n\n# Leaderboard\n\n{as_markdown(board)}\n"
        f"## Columns\n\n{columns}\n"
        "A column `..._stderr` has the standard error of the one before it.\n\n## Files\n\n"
        "- `leaderboard.parquet`, `leaderboard.csv`: the table above, unrounded.\n"
        f"- `results.parquet`: all {n_results:,} values at these checkpoints, with where each comes from.\n"
        "- `results/`: lm-eval's own result files, and the arrays of lmsat's measurements.\n"
        "- `eval_results/`, where there are scores of benchmarks registered on the Hub: files for the repositories "
        "of the models.\n\nMade by lmsat, a plugin of the LM Evaluation Harness.\n"
    )
