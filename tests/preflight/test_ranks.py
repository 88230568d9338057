"""What a machine lacks for a training of several ranks, said once."""

import pytest

from reproduction.cells.cell import Cell
from reproduction.preflight import NotReady, require_training


def test_of_the_ranks_of_a_launch_the_first_says_what_is_missing_and_the_others_end(
    paper: dict[str, Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(NotReady, match="1 cells at scale=paper cannot run here"):
        require_training(paper["lora"])
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as end:
        require_training(paper["lora"])
    assert end.value.code == 2
