"""Small plots of the page: positions on an axis in percent."""

from reproduction.report.page.plots import Bar, Line, Mark, leads, plot


def test_positions_are_percents_of_the_axis() -> None:
    (line,) = plot([Line(label="LoRA", numbers=[], marks=[Mark(3, "lora")], bars=[Bar(1, 4, "ink")])], ends=(0, 4))[
        "lines"
    ]
    assert (line["marks"][0].at, line["bars"]) == (75, [(25, 75, "ink")])


def test_equal_values_and_none_stand_in_the_middle() -> None:
    (line,) = plot([Line(label="LoRA", numbers=[], marks=[Mark(1.5, "lora")])])["lines"]
    assert line["marks"][0].at == leads([], title="Nothing was run", other="LoRA")["zero"] == 50
