"""A table's cells, as the configs want them now."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from reproduction.cells.cell import Cell
from reproduction.cells.config_schema import ConfigError
from reproduction.report.grid import CellKey


@dataclass(frozen=True)
class Plan:
    """(experiment, method, seed) → cell. Two keys may share a run: an untuned base is one for all its tasks."""

    cells: Mapping[CellKey, Cell]

    @property
    def runs(self) -> dict[CellKey, str]:
        """Each key's run folder, whose name holds the digest of the config."""
        return {key: cell.run.name for key, cell in self.cells.items()}

    @property
    def evaluations(self) -> dict[tuple[str, str], str]:
        """(benchmark, protocol name) → name of the evaluation's folder, the same in every cell of the table; of each
        benchmark in the order in which the cells have them, so its first default stands first.

        Raises `ConfigError` where two cells would evaluate one benchmark under different protocols of one name.
        """
        names: dict[tuple[str, str], str] = {}
        for key, cell in self.cells.items():
            for protocol in cell.protocols:
                asked = (protocol.benchmark, protocol.name)
                name = cell.subject.eval_folder(protocol).name
                if names.setdefault(asked, name) != name:
                    cell_name = "/".join(map(str, key))
                    raise ConfigError(f"{cell_name} evaluates {asked[0]} under another protocol called {asked[1]}")
        return names

    def restricted(self, *, experiments: Collection[str], methods: Collection[str]) -> list[Cell]:
        """The cells of these experiments and methods."""
        return [cell for (e, m, _), cell in self.cells.items() if e in experiments and m in methods]


def distinct(cells: Iterable[Cell]) -> list[Cell]:
    """One cell for each run, with the protocols of all that share it, in the order of the first."""
    runs: dict[str, Cell] = {}
    for cell in cells:
        known = runs.setdefault(cell.run.name, cell)
        protocols = tuple(dict.fromkeys((*known.protocols, *cell.protocols)))
        runs[cell.run.name] = dataclasses.replace(known, protocols=protocols)
    return list(runs.values())
