"""Which runs a query selects, and that runs on different examples are not compared by accident."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from made_up import made_up_run

from harness.analysis.query import Query, data_seen, refuse_mixed_data, select
from harness.base.errors import BadRequest
from harness.tracking.reader import Point
from harness.tracking.schema import StoredRun

GROUP = made_up_run(9, None, None, tags={"kind": "group"}, run_id="9" * 32)
RUNS = [
    made_up_run(8, tags={"kind": "trial"}, run_id="8" * 32),
    *(made_up_run(number, number, parent=GROUP.run_id) for number in (4, 3, 2)),
    made_up_run(1, 7, parameters={"dataset": "mnist"}),
]


class Shelf:
    """A reader of the runs above."""

    def experiments(self) -> list[str]:
        return ["baseline"]

    def runs(
        self, experiment: str | None = None, filter: str = "", run_ids: Sequence[str] = ()
    ) -> list[StoredRun]:
        found = [run for run in (GROUP, *RUNS) if experiment in (None, run.mlflow_experiment)]
        return [run for run in found if not run_ids or run.run_id in run_ids]

    def run(self, run_id: str) -> StoredRun:
        raise NotImplementedError

    def find(self, identity: str, what: str = "run") -> StoredRun:
        raise NotImplementedError

    def children(self, run_id: str) -> list[StoredRun]:
        return [run for run in RUNS if run.parent == run_id]

    def history(self, run_ids: Sequence[str]) -> list[Point]:
        raise NotImplementedError

    def artifact(self, run_id: str, path: str) -> bytes | None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        (Query(), [4, 3, 2, 1]),
        (Query(experiment="baseline"), [4, 3, 2, 1]),
        (Query(study="baseline"), [8]),
        (Query(dataset="mnist"), [1]),
        (Query(run_ids=(RUNS[-1].run_id, GROUP.run_id)), [4, 3, 2, 1]),
        (Query(run_ids=(GROUP.run_id, RUNS[2].run_id)), [4, 3, 2]),
    ],
)
def test_a_query_selects_runs_and_never_groups(query: Query, numbers: list[int]) -> None:
    found = select(query, Shelf())
    assert [(run.start - 1_767_225_600_000) // 1000 for run in found] == numbers


def test_a_data_set_that_no_run_saw_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match=r"no such runs on 'minst'\. Did you mean mnist"):
        select(Query(dataset="minst"), Shelf())


def test_a_query_says_what_it_asks_for() -> None:
    assert str(Query()) == ""
    asked = Query(("ab", "cd"), dataset="mnist", filter="x > 1")
    assert str(asked) == "filter 'x > 1', dataset 'mnist', run 'ab cd'"


def test_different_images_are_told_apart() -> None:
    nowhere = StoredRun("0" * 32, "foreign", "some", 0, None)
    assert data_seen(nowhere) == ()
    refuse_mixed_data([made_up_run(1), nowhere])
    others = made_up_run(3, tags={"data.test_sha256": "d" * 64})
    with pytest.raises(BadRequest) as raised:
        refuse_mixed_data([made_up_run(1), made_up_run(2), others])
    assert str(raised.value).splitlines()[1:3] == [
        "  digits, test examples (SHA-256 aaaaaaaa, bbbbbbbb): 2 runs",
        "  digits, test examples (SHA-256 aaaaaaaa, dddddddd): 1 run",
    ]
