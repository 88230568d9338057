"""How every figure looks: which colour and mark a method has, there and beside its name on the page; type and lines.

A hue is a pair: one for white paper, one for dark. Each keeps 3:1 against its ground, and the methods of Tables 1 and
2 stay apart for readers with protanopia, deuteranopia and tritanopia. A control has the hue of the part that it
exchanges; its mark tells it from its siblings, and its name stands on the axis, so that colour alone never carries the
meaning.
"""

from dataclasses import dataclass

PAPER, NIGHT = "#ffffff", "#15181c"
"""The grounds that the hues are chosen against."""

INK, MUTED, RULE, PANEL = "#1c1e22", "#5b6067", "#dfe1e4", "#f4f2ec"
"""Text and axes, secondary text, grid lines, and the ground behind numbers that are the paper's."""

RC = {
    "figure.dpi": 200,  # of a PNG, and of what is laid out: letters are not equally wide at all resolutions
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same bytes on every machine
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 8,
    "figure.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "svg.fonttype": "none",  # text stays text: searchable, and in the page's own font
    "svg.hashsalt": "idlora",
    "pdf.fonttype": 42,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
"""Type, lines and ground of every figure, for matplotlib."""


@dataclass(frozen=True)
class Hue:
    """One colour on both grounds, as "#rrggbb"."""

    light: str
    dark: str


HUES = {
    "base": Hue("#8f9295", "#86888c"),
    "fft": Hue("#13171c", "#f3f5f7"),
    "lora": Hue("#1f3bab", "#3f68d8"),
    "dora": Hue("#229ad8", "#83d7f6"),
    "hydralora": Hue("#318556", "#6cbb7a"),
    "moelora": Hue("#62215e", "#d382fa"),
    "idlora": Hue("#d34414", "#db5617"),
    "rows": Hue("#b57d05", "#fad281"),
    "router": Hue("#bd5682", "#fa82b5"),
    "split": Hue("#4c2c1d", "#9e786a"),
    "other": Hue("#5f6368", "#a9adb3"),
}
"""By method; "rows", "router" and "split" are the parts of ID-LoRA that a control exchanges."""


@dataclass(frozen=True)
class Look:
    """A method's hue, a key of `HUES`, and its matplotlib marker."""

    hue: str
    marker: str

    @property
    def colour(self) -> str:
        """On white paper."""
        return HUES[self.hue].light


LOOKS = {
    "base": Look("base", "o"),
    "fft": Look("fft", "s"),
    "lora": Look("lora", "o"),
    "dora": Look("dora", "^"),
    "hydralora": Look("hydralora", "v"),
    "moelora": Look("moelora", "P"),
    "idlora": Look("idlora", "D"),
    "lora_fa": Look("lora", "<"),
    "lora_counted": Look("lora", "h"),
    "lora_equal": Look("lora", "s"),
    "lora_long_rows": Look("lora", "^"),
    "vera": Look("other", "X"),
    "idlora_serial": Look("rows", "<"),
    "idlora_random": Look("rows", ">"),
    "idlora_pivoted_qr": Look("rows", "s"),
    "idlora_smallest_norm": Look("rows", "v"),
    "idlora_largest_norm": Look("rows", "^"),
    "idlora_gaussian": Look("rows", "X"),
    "idlora_orthonormal": Look("rows", "D"),
    "idlora_equal_norm": Look("rows", "P"),
    "idlora_inner": Look("router", "o"),
    "idlora_uniform": Look("router", "s"),
    "idlora_no_rb": Look("split", "o"),
    "idlora_no_rb_same_rank": Look("split", "s"),
    "idlora_s4": Look("split", "^"),
}


NEUTRAL = (("#272a4a", "o"), ("#9e6f60", "s"), ("#968eb5", "D"), ("#606399", "^"), ("#57402e", "v"))
"""Colour and marker of curves that are no method, such as the settings of a simulation; on white paper alone."""


def look(method: str) -> Look:
    """A method's look. One step of a sweep (lora_half, idlora_k6) looks like the method that is swept.

    A method that this file does not know is neutral: it can be shown before anybody chose a colour for it.
    """
    return LOOKS.get(method) or LOOKS.get(method.split("_")[0]) or Look("other", "*")
