"""The look of every figure and of the report page: colours and marks of methods, type and lines.

Each hue is a pair: one colour for white paper, one for dark. Each keeps a contrast of 3:1 against its ground. The
methods of Tables 1 and 2 are distinguishable for readers with protanopia, deuteranopia and tritanopia. A control has
the hue of the component that it replaces; its marker and its name on the axis identify it, so colour alone never
carries the meaning.
"""

from dataclasses import dataclass

PAPER, NIGHT = "#ffffff", "#15181c"
"""Backgrounds that the hues are chosen against."""

INK, MUTED, RULE, PANEL = "#1c1e22", "#5b6067", "#dfe1e4", "#f4f2ec"
"""Colours of text and axes, secondary text, grid lines, and the background of the paper's numbers."""

RC = {
    "figure.dpi": 200,  # for PNG and layout: the width of letters depends on the resolution
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
"""matplotlib settings for type, lines and background of every figure."""


@dataclass(frozen=True)
class Hue:
    """One colour for both backgrounds, as "#rrggbb"."""

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
"""Hues by method; "rows", "router" and "split" are the components of ID-LoRA that a control replaces."""


@dataclass(frozen=True)
class Look:
    """A method's hue, a key of `HUES`, and its matplotlib marker."""

    hue: str
    marker: str

    @property
    def colour(self) -> str:
        """The colour on white paper."""
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
"""Colour and marker of curves that show no method, such as the settings of a simulation; for white paper only."""


def look(method: str) -> Look:
    """Return a method's look. A step of a sweep (lora_half, idlora_k6) has the look of the swept method.

    A method without an entry in `LOOKS` gets a neutral look, so it can be plotted before a colour is chosen for it.
    """
    return LOOKS.get(method) or LOOKS.get(method.split("_")[0]) or Look("other", "*")
