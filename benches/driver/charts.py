"""Bar charts as SVG, in a light and a dark variant."""

from dataclasses import dataclass, field
from html import escape

# The colours of GitHub's pages; the background is left to the page.
THEMES = {
    "light": {"text": "#1f2328", "muted": "#59636e", "grid": "#d1d9e0", "bar": "#a4adb8", "accent": "#0969da"},
    "dark": {"text": "#f0f6fc", "muted": "#9198a1", "grid": "#3d444d", "bar": "#6e7681", "accent": "#4493f8"},
}
FONT = "-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"
ROW, BAR = 22, 14
HEADER = 46
GAP = 28
VALUE = 58  # for the figure behind a bar


@dataclass
class Panel:
    """Bars below a heading. A bar longer than `most` is cut, which its figure tells."""

    title: str
    note: str
    most: float
    mark: float = 0  # a line at this value
    bars: list = field(default_factory=list)  # (label, value, figure, is it ours)
    plain: bool = False  # all bars are ours, so that none stands out

    @property
    def height(self):
        return HEADER + ROW * len(self.bars)


def text(x, y, words, color, size=12, anchor="start", weight="normal"):
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{color}" font-size="{size}" text-anchor="{anchor}"'
        f' font-weight="{weight}">{escape(words)}</text>'
    )


def draw(panel, x, y, width, label, theme):
    """One panel's elements."""
    full = width - label - 8 - VALUE
    parts = [
        text(x, y + 14, panel.title, theme["text"], 13, weight="600"),
        text(x, y + 31, panel.note, theme["muted"], 11),
    ]
    left, top = x + label + 8, y + HEADER - 6
    bottom = top + ROW * len(panel.bars)
    for at, (name, value, figure, ours) in enumerate(panel.bars):
        middle = top + ROW * at + ROW / 2
        color = theme["accent"] if ours else theme["bar"]
        weight = "600" if ours and not panel.plain else "normal"
        parts.append(text(x + label, middle + 4, name, theme["text"], anchor="end", weight=weight))
        if value is None:
            parts.append(text(left, middle + 4, "not measured", theme["muted"], 11))
            continue
        length = max(1, full * min(value, panel.most) / panel.most)
        up, down = middle - BAR / 2, middle + BAR / 2
        if value <= panel.most:
            parts.append(f'<rect x="{left:g}" y="{up:g}" width="{length:.1f}" height="{BAR}" rx="2" fill="{color}"/>')
        else:
            # Two pieces with a slanted gap: the bar goes on.
            for start, end in ((0, length - 22), (length - 14, length)):
                a, b = left + start, left + end
                lean = 5 if start else 0
                points = f"{a:.1f},{down:g} {a + lean:.1f},{up:g} {b + (0 if start else 5):.1f},{up:g} {b:.1f},{down:g}"
                parts.append(f'<polygon points="{points}" fill="{color}"/>')
        parts.append(text(left + length + 6, middle + 4, figure, theme["text"], weight=weight))
    parts.append(f'<line x1="{left:g}" y1="{top}" x2="{left:g}" y2="{bottom}" stroke="{theme["grid"]}"/>')
    if panel.mark:
        at = left + full * panel.mark / panel.most
        parts.append(
            f'<line x1="{at:.1f}" y1="{top - 2}" x2="{at:.1f}" y2="{bottom}"'
            f' stroke="{theme["muted"]}" stroke-dasharray="3 3"/>'
        )
    return parts


def svg(title, panels, columns, theme, width=840, label=120):
    """A chart with its panels in this number of columns, row by row."""
    theme = THEMES[theme]
    each = (width - GAP * (columns - 1)) / columns
    parts, y = [], 4
    for at in range(0, len(panels), columns):
        line = panels[at : at + columns]
        for column, panel in enumerate(line):
            parts += draw(panel, column * (each + GAP), y, each, label, theme)
        y += max(panel.height for panel in line) + GAP / 2
    height = y - GAP / 2 + 4
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{width}" height="{height:g}"'
        f' font-family="{FONT}" role="img">\n<title>{escape(title)}</title>\n' + "\n".join(parts) + "\n</svg>\n"
    )
