"""Operations on files fail of the commands that write reports, folders for the Hub, records and tables.

The command says so, and the next one writes what it would have written, and leaves nothing else. A sample of faults;
with LMSAT_EXHAUSTIVE=1 all of commands that are quick, and one of each kind of those that compute for long.
"""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest
from exhaustive import EXHAUSTIVE
from fault_checks import complains, tally
from faults import Case, Fault, faults_of, first_command, preloaded, run_all, sample_of
from result_trees import Made, write_tree
from sweep_outputs import files_below
from warm_lmsat import WarmLmsat

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = {
    "table": ["results", "TREE", "--format", "csv", "--output", "OUT/table.csv"],
    "export": ["export", "TREE", "--output", "OUT"],
    "hub": ["leaderboard", "TREE", "--hub", "OUT"],
    "report": ["report", "TREE", "--output", "OUT"],
}
SLOW = ("export", "hub", "report")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tree") / "results"
    write_tree(root, [Made("one", 10**7), Made("two", 10**8)], tasks={"arc_easy": (0.25, 3.4, 0.010)})
    return root


@pytest.fixture(scope="module")
def warm(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    warm = WarmLmsat(folder, preloaded(folder), first_command(["leaderboard", str(tree)], once=False))
    yield warm
    warm.close()


def written(folder: Path) -> dict[str, bytes]:
    """Return the content of all files, without the second in which a record was made."""
    return {name: re.sub(rb"\b1[6-9]\d{8}\b", b"", data) for name, data in files_below(folder).items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_any_operation_on_files_fails(name, tree, warm, tmp_path):
    if name in SLOW and not EXHAUSTIVE:
        pytest.skip("LMSAT_EXHAUSTIVE=1 has the time for it")

    def case(output: Path, fault: Fault | None = None) -> Case:
        filled = [text.replace("TREE", str(tree)).replace("OUT", str(output)) for text in COMMANDS[name]]
        return Case(output, filled, fault or Fault())

    [undisturbed] = run_all(warm, [case(tmp_path / "undisturbed")])
    assert undisturbed.code == 0, undisturbed.output
    right, operations = written(tmp_path / "undisturbed"), undisturbed.operations
    faults = list(faults_of(operations))
    if name in SLOW or not EXHAUSTIVE:
        faults = sample_of(faults, operations)[:: 1 if EXHAUSTIVE else 2]
    print(name, len(operations), "operations,", len(faults), "faults:", tally(faults, operations))
    cases = [case(tmp_path / str(index), fault) for index, fault in enumerate(faults)]
    all_disturbed = run_all(warm, cases)
    left = [written(each.root) for each in cases]
    again = run_all(warm, [case(each.root) for each in cases])
    wrong = []
    for each, disturbed, restarted, files in zip(cases, all_disturbed, again, left, strict=True):
        said = ["traceback"] if "Traceback" in disturbed.output else []
        if disturbed.code not in (0, -signal.SIGKILL) and not complains(disturbed.output):
            said.append("no sentence")
        if disturbed.code == 0 and any(files.get(name) != data for name, data in right.items()):
            said.append("exit code 0 with something missing")
        if restarted.code or (now := written(each.root)) != right:
            different = sorted(name for name in right.keys() | now.keys() if right.get(name) != now.get(name))
            said.append(f"the second ends with {restarted.code}, and {different} are different")
        if said:
            wrong.append(f"{each.fault} {operations[each.fault.number - 1]}: {said}\n{disturbed.output}")
    assert not wrong, f"{len(wrong)} of {len(faults)}:\n" + "\n".join(wrong)
