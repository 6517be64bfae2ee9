"""The plot of docs/bench.md as SVG: from knock to opening, and what opens under a flood, fwknopd beside tinyknop."""

import math

BAR, GAP, LEFT, WIDTH = 16, 8, 190, 420  # pixels
STYLE = (
    "text{font:12px sans-serif;fill:#333}.t{font-weight:bold}.g{stroke:#8888;stroke-dasharray:2}"
    ".fwknopd{fill:#c44e52}.tinyknop{fill:#4c72b0}@media(prefers-color-scheme:dark){text{fill:#ddd}}"
)
FLOODS = ("1 source", "64 sources", "500 sources", "forged sources")


def number(text):
    """Returns the first number of a cell, None where there is none."""
    word = text.split(" ")[0].replace(",", "") if text else ""
    try:
        return float(word)
    except ValueError:
        return None


def panel(top, title, bars, ticks, unit, logarithmic):
    """Returns (lines of SVG, y below them) for bars (label, value, class); `ticks` are values of the axis."""
    low, high = ticks[0], ticks[-1]

    def x(value):
        value = min(max(value, low), high)
        share = math.log(value / low) / math.log(high / low) if logarithmic else (value - low) / (high - low)
        return LEFT + WIDTH * share

    bottom = top + 30 + len(bars) * (BAR + GAP)
    lines = ['<text class="t" x="10" y="%d">%s</text>' % (top + 16, title)]
    for tick in ticks:
        place = (x(tick), top + 26, x(tick), bottom)
        lines.append('<line class="g" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>' % place)
        lines.append('<text x="%.1f" y="%d" text-anchor="middle">%g%s</text>' % (x(tick), bottom + 14, tick, unit))
    for i, (label, value, kind) in enumerate(bars):
        y = top + 30 + i * (BAR + GAP)
        place = (LEFT - 8, y + BAR - 4, label)
        lines.append('<text x="%d" y="%d" text-anchor="end">%s</text>' % place)
        place = (kind, LEFT, y, max(x(value) - LEFT, 1), BAR)
        lines.append('<rect class="%s" x="%d" y="%d" width="%.1f" height="%d"/>' % place)
        lines.append('<text x="%.1f" y="%d">%g%s</text>' % (max(x(value), LEFT) + 4, y + BAR - 4, value, unit))
    return lines, bottom + 30


def bar(label, column, text):
    """Returns a bar for a column's cell, or nothing where it has no figure."""
    value = number(text)
    kind = "fwknopd" if column == "fwknopd" else "tinyknop"
    return [] if value is None else [(label, value, kind)]


def drawn(ports, floods):
    """Returns the plot, from the rows of the sections `ports` and `flood`: {row: {column: cell}}."""
    bars = []
    for column, text in ports.get("knock to open, median", {}).items():
        bars += bar(column if column == "fwknopd" else "tinyknop, " + column, column, text)
    shares = []
    for flood in FLOODS:
        for column, text in floods.get(flood, {}).items():
            who = column if column == "fwknopd" else "tinyknop" + ", hints" * ("hints" in column)
            shares += bar("%s: %s" % (flood.replace(" sources", ""), who), column, text)
    lines, y = panel(0, "From a knock to its opening (median, logarithmic)", bars, (0.1, 1, 10, 100, 1000), " ms", True)
    more, y = panel(y, "Knocks opened within a second, flood from", shares, (0, 25, 50, 75, 100), " %", False)
    size = (LEFT + WIDTH + 70, y)
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d"><style>%s</style>' % (*size, STYLE)
    return "\n".join([head, *lines, *more, "</svg>"]) + "\n"
