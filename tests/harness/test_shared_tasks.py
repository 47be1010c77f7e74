"""Tasks that checkpoints and processes share ask the same, whatever the number of processes."""

from __future__ import annotations

import pytest
from quiz import write_quiz

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.shared_tasks import SharedTasks


def test_the_shots_of_a_document_do_not_depend_on_the_number_of_processes(tmp_path):
    folder = write_quiz(tmp_path / "quiz", test=7)

    def built(rank: int, size: int) -> dict:
        task = SharedTasks(["quiz"], [str(folder)], {})._load_spec("quiz")
        task.set_fewshot_seed(1234)
        task.build_all_requests(rank=rank, world_size=size)
        return {(request.doc_id, request.idx): request.args for request in task.instances}

    alone, parts = built(0, 1), [built(rank, 3) for rank in range(3)]
    assert [sorted({document for document, _ in part}) for part in parts] == [[0, 3, 6], [1, 4], [2, 5]]
    assert {key: args for part in parts for key, args in part.items()} == alone
    with pytest.raises(LmsatError, match="quiz has fewer documents than the launch has processes"):
        built(7, 8)
