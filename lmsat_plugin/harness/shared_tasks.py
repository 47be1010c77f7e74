"""Tasks that many checkpoints share: their objects, few-shot contexts and requests are built once."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind, TaskIndex

import lmsat_autoload
from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.harness.choices import add_choice_metrics
from lmsat_plugin.harness.downstream import identity_of
from lmsat_plugin.harness.lm_eval_index import LM_EVAL_TASKS, lm_eval_index
from lmsat_plugin.harness.task_files import sha256_of, task_files
from lmsat_plugin.plugins import plugins
from lmsat_plugin.settings import closest

# A task of the user's in the place of another is what include_path is for.
logging.getLogger("lm_eval.tasks._index").addFilter(lambda record: "overrides existing task" not in str(record.msg))
_HERE = Path(lmsat_autoload.__file__).parent
_LMSATS_TASKS = _HERE / "tasks", _HERE / "lmsat_plugin" / "tasks"
"""In a checkout, and in a package."""


class TaskError(LmsatError):
    """A task or its data cannot be loaded, whatever the checkpoint."""


class SharedTasks(TaskManager):
    """A task manager that gives the same Task objects each time, with their requests kept.

    Multiple-choice tasks measure `choices.choice_metrics` too. These do not identify a task: results without them
    stay valid.

    Args:
        wanted: Names, globs, tags and YAML files of tasks.
        include_path: The user's folders of tasks.
        metadata: What ``lm_eval --metadata`` would be.
    """

    def __init__(self, wanted: Sequence[str], include_path: Sequence[str], metadata: dict[str, Any]) -> None:
        folders = [*lmsat_autoload.task_folders(), *include_path]
        super().__init__(include_defaults=False, include_path=folders, metadata=metadata)
        if not all(self._matches(name) for name in wanted):
            self._add_lm_evals()
            for name in wanted:
                self._matches(name)
        self._loaded: dict[str, Any] = {}

    def _add_lm_evals(self) -> None:
        """Add lm-eval's own tasks, of which those with a name that is known already are left out."""
        self._index: dict[str, Entry] = {**lm_eval_index(), **self.task_index}
        kinds: dict[Kind, list[str]] = defaultdict(list)
        self._all_tasks = sorted(self._index)
        for name in self._all_tasks:
            kinds[self._index[name].kind].append(name)
        self._all_subtasks = sorted(kinds[Kind.TASK] + kinds[Kind.PY_TASK])
        self._all_groups, self._all_tags = kinds[Kind.GROUP], kinds[Kind.TAG]

    def resolve(self, wanted: Sequence[str]) -> list[str]:
        """Return the names of tasks and groups that names, globs, tags and YAML files stand for, each once.

        Raises `LmsatError` for a task that is not there.
        """
        names: dict[str, None] = {}
        for name in wanted:
            matches = self._matches(name)
            if not matches:
                meant = closest(name, self.all_tasks)
                hint = f"did you mean {meant}?" if meant else "`lm_eval ls tasks` lists lm-eval's"
                raise LmsatError(f"no task is named '{name}': {hint} (your own are found with include_path: FOLDER)")
            for match in matches:
                tagged = self.task_index[match].tags if match in self.all_tags else (match,)
                names.update(dict.fromkeys(sorted(tagged)))
        return list(names)

    def _matches(self, name: str) -> list[str]:
        """Return the names that a name, a glob or a file stands for; a file's task is known by its name then."""
        if name in self.task_index:
            return [name]
        if matches := self.match_tasks([name]):
            return matches
        entry = TaskIndex.entry_from_path(Path(name))
        if entry is None:
            return []
        self.task_index[entry.name] = entry
        return [entry.name]

    def probe_of(self, name: str) -> str | None:
        """Return the probe that a task of ours asks for; None for any other task."""
        return (self._config_of(name) or {}).get("probe")

    def version_of(self, name: str) -> Any:
        """Return what identifies a task: its version, by member for a group; a file of the user's by its content."""
        if (probe := self.probe_of(name)) is not None:
            return plugins().probe(probe).version
        config = self._config_of(name) or {}
        version = (config.get("metadata") or {}).get("version")
        if isinstance(config.get("task"), list):
            names = [member if isinstance(member, str) else member.get("task", "") for member in config["task"]]
            members = {member: self.version_of(member) for member in names if member in self.task_index}
            return {"version": version, **members}
        path = self._own_yaml(name)
        if path is None:
            return version
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        identity = {"version": version, "yaml_sha256": digest, **identity_of(config, self.metadata or {})}
        # lmsat's own tasks have versions for what else makes them.
        others = [] if any(map(path.is_relative_to, _LMSATS_TASKS)) else task_files(path, config)
        return {**identity, "files_sha256": sha256_of(others)} if others else identity

    def files_of(self, name: str) -> list[Path]:
        """Return the files that make a task or a group which is not lm-eval's own."""
        if self.probe_of(name) is not None:
            return []
        config = self._config_of(name) or {}
        if isinstance(config.get("task"), list):
            names = [member if isinstance(member, str) else member.get("task", "") for member in config["task"]]
            return [file for member in names if member in self.task_index for file in self.files_of(member)]
        path = self._own_yaml(name)
        return [] if path is None else [path, *task_files(path, config)]

    def _own_yaml(self, name: str) -> Path | None:
        """Return the YAML of a task that is not lm-eval's own."""
        entry = self.task_index.get(name)
        path = entry.yaml_path if entry else None
        return None if path is None or path.is_relative_to(LM_EVAL_TASKS) else path

    def _config_of(self, name: str) -> dict[str, Any] | None:
        entry = self.task_index.get(name)
        if entry is None or entry.cfg is not None or entry.yaml_path is None:
            return entry.cfg if entry else None
        return lm_eval.tasks._yaml_loader.load_yaml(entry.yaml_path, resolve_func=False)

    def _load_spec(self, spec: Any) -> Any:
        """Load a task or a group once. Raises `TaskError` if it cannot be loaded."""
        if spec not in self._loaded:
            try:
                loaded = super()._load_spec(spec)
            except LmsatError as error:
                raise TaskError(str(error)) from error
            except Exception as error:
                raise TaskError(
                    f"the task '{spec}' cannot be loaded ({first_sentence(error)}): "
                    "check its data and the network, or leave it out"
                ) from error
            for task in loaded.get_all_tasks() if isinstance(loaded, Group) else [loaded]:
                _build_once(task)
                add_choice_metrics(task)
            self._loaded[spec] = loaded
        return self._loaded[spec]


def _build_once(task: Task) -> None:
    """Make a task build its requests only once; afterwards it hands them out without their old answers."""
    build, built = task.build_all_requests, False

    def build_all_requests(*, rank: int = 0, world_size: int = 1, **options: Any) -> None:
        nonlocal built
        if not built:
            # Each process draws the shots of all documents: those of its own would be others than one process draws.
            build(**options)
            if world_size > 1:
                chosen = {key: options.get(key) for key in ("limit", "samples")}
                own = {number for number, _ in task.doc_iterator(rank=rank, world_size=world_size, **chosen)}
                task._instances = [each for each in task.instances if each.doc_id in own]
                if not own:
                    raise LmsatError(
                        f"{task.task_name} has fewer documents than the launch has processes: start fewer of them"
                    )
            built = True
        for instance in task.instances:
            instance.resps = []
            instance.filtered_resps = {}

    task.build_all_requests = build_all_requests
