"""The README shows the committed reference output, and its commands exist."""

import re
from pathlib import Path


def test_the_readmes_table_is_the_committed_one(repository: Path) -> None:
    shown = re.search(r"<!-- table1 -->\n(.*?)<!-- /table1 -->", (repository / "README.md").read_text(), re.DOTALL)[1]
    committed = (repository / "results/tiny/tables/table1.md").read_text()
    grid = re.search(r"^\| Model.*?(?=\n\n)", committed, re.DOTALL | re.MULTILINE)[0]
    assert shown.strip() == grid
    assert len(grid.splitlines()) == 2 + 12


def test_every_file_and_folder_that_the_readme_names_exists(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    named = re.findall(r"`((?:configs|idlora|scripts|experiments|results|tests)/[\w/.]+)", text)
    assert len(named) > 10
    assert not [name for name in named if not (repository / name).exists()]


def test_every_make_target_that_the_readme_names_is_in_the_makefile(repository: Path) -> None:
    targets = set(re.findall(r"(?:`|^    )make ([a-z]\w*)", (repository / "README.md").read_text(), re.MULTILINE))
    assert targets >= {"table1", "test"}
    makefile = (repository / "Makefile").read_text()
    rules = {name for rule in re.findall(r"^([a-z][\w ]*):", makefile, re.MULTILINE) for name in rule.split()}
    assert targets <= rules
