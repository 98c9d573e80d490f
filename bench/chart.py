"""Small diagrams as SVG for the documents: lines, marks and ranges in panels beside one another.

The page behind a picture may be light or dark and the picture cannot know, so every colour has a contrast of 3 or more with
both. Series differ in colour (after Okabe and Ito, told apart by colour-blind eyes too), in the shape of their marks and
in their dashes.
"""
import html
import math

COLOURS = ("#6e7781", "#0072b2", "#d55e00", "#009e73", "#b5618f", "#8a6d00")
DASHES = ("", "", "7 3", "2 3", "9 3 2 3", "4 4")
TEXT = "#6e7781"
STYLE = (f"text{{font:12px sans-serif;fill:{TEXT}}}.title{{font:600 14px sans-serif}}.label{{font-weight:600}}"
         f".end{{text-anchor:end}}.mid{{text-anchor:middle}}.axis{{stroke:{TEXT};fill:none}}"
         f".grid{{stroke:{TEXT};opacity:.25}}.rule{{stroke:{TEXT};stroke-dasharray:4 3}}polyline{{fill:none;stroke-width:1.8}}")


def ticks(low, high, most=5):
    """Round numbers from low to high, no more than about `most`."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= most)
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def around(values, zero=False, room=0.08):
    """Ends of an axis on which all values are seen; from 0 with `zero`."""
    low, high = min(values), max(values)
    if zero:
        return 0.0, (high or 1.0) * (1 + room)
    margin = room * (high - low) or abs(high) * room or 1.0
    return low - margin, high + margin


class Panel:
    """One diagram in the box x, y, width, height, axes' labels outside of it."""

    count = 0

    def __init__(self, box, x_range, y_range, x_label="", y_label="", x_ticks=None, y_ticks=None):
        """Ticks are numbers, or pairs of a number and its text."""
        self.box, self.x_range, self.y_range = box, x_range, y_range
        Panel.count += 1
        self.clip = f"clip{Panel.count}"
        self.body = []
        self._axes(x_label, y_label, ticks(*x_range) if x_ticks is None else x_ticks,
                   ticks(*y_range) if y_ticks is None else y_ticks)

    def point(self, x, y):
        left, top, width, height = self.box
        return (left + width * (x - self.x_range[0]) / (self.x_range[1] - self.x_range[0]),
                top + height * (1 - (y - self.y_range[0]) / (self.y_range[1] - self.y_range[0])))

    def inside(self, x, y):
        return self.x_range[0] <= x <= self.x_range[1] and self.y_range[0] <= y <= self.y_range[1]

    def text(self, x, y, text, style=""):
        """At a place of the picture."""
        self.body.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{html.escape(text)}</text>')

    def _axes(self, x_label, y_label, x_ticks, y_ticks):
        left, top, width, height = self.box
        bottom = top + height
        frame = f'<rect x="{left}" y="{top}" width="{width:.1f}" height="{height}"/>'
        self.body.append(f'<clipPath id="{self.clip}">{frame}</clipPath>')
        for tick in y_ticks:
            value, name = tick if isinstance(tick, tuple) else (tick, f"{tick:g}")
            _, y = self.point(self.x_range[0], value)
            self.body.append(f'<path d="M{left} {y:.1f}h{width:.1f}" class="grid"/>')
            self.text(left - 6, y + 4, name, "end")
        for tick in x_ticks:
            value, name = tick if isinstance(tick, tuple) else (tick, f"{tick:g}")
            x, _ = self.point(value, self.y_range[0])
            self.body.append(f'<path d="M{x:.1f} {bottom}v4" class="axis"/>')
            self.text(x, bottom + 17, name, "mid")
        self.body.append(f'<path d="M{left} {top}V{bottom}h{width:.1f}" class="axis"/>')
        self.text(left, top - 10, y_label, "label")
        self.text(left + width, bottom + 34, x_label, "end")

    def line(self, points, series, solid=False):
        dash = f' stroke-dasharray="{DASHES[series]}"' if DASHES[series] and not solid else ""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.point(*p) for p in points))
        self.body.append(f'<polyline points="{path}" stroke="{COLOURS[series]}"{dash} clip-path="url(#{self.clip})"/>')

    def marks(self, points, series, filled=True):
        """Those that are inside the panel."""
        for point in points:
            if self.inside(*point):
                self.body.append(mark(*self.point(*point), series, filled))

    def note(self, x, y, text, dx=7, dy=-6, style=""):
        """Beside a point of the diagram."""
        if self.inside(x, y):
            at_x, at_y = self.point(x, y)
            self.text(at_x + dx, at_y + dy, text, style)

    def span(self, x, low, high, series):
        """A vertical range."""
        at, y0 = self.point(x, low)
        _, y1 = self.point(x, high)
        self.body.append(f'<path d="M{at:.1f} {y0:.1f}V{y1:.1f}" stroke="{COLOURS[series]}" stroke-width="5" opacity=".35"/>')

    def rule(self, text, x=None, y=None):
        """A dashed line across at x or y."""
        left, top, width, height = self.box
        if x is not None:
            at, _ = self.point(x, self.y_range[0])
            self.body.append(f'<path d="M{at:.1f} {top}v{height}" class="rule"/>')
            self.text(at + 4, top + 11, text)
        else:
            _, at = self.point(self.x_range[0], y)
            self.body.append(f'<path d="M{left} {at:.1f}h{width:.1f}" class="rule"/>')
            self.text(left + width, at - 4, text, "end")

    def legend(self, names, right=150, top=8):
        """names: {series: text}, in the upper right corner."""
        x = self.box[0] + self.box[2] - right
        for i, (series, name) in enumerate(names.items()):
            self.sign(x, self.box[1] + top + 17 * i, series, name)

    def sign(self, x, y, series, name):
        """A series' line, mark and name, at a place of the picture."""
        dash = f' stroke-dasharray="{DASHES[series]}"' if DASHES[series] else ""
        self.body.append(f'<path d="M{x:.1f} {y}h28" stroke="{COLOURS[series]}" stroke-width="1.8"{dash}/>'
                         + mark(x + 14, y, series))
        self.text(x + 35, y + 4, name)


def mark(x, y, series, filled=True):
    """A series' sign: circle, square, triangle, diamond, triangle upside down, cross."""
    colour = COLOURS[series]
    paint = f'fill="{colour}"' if filled else f'fill="none" stroke="{colour}" stroke-width="1.6"'
    shapes = ("", "M-3.5 -3.5h7v7h-7z", "M0 -4.6L4.4 3.4H-4.4z", "M0 -4.8L4.2 0L0 4.8L-4.2 0z", "M0 4.6L4.4 -3.4H-4.4z",
              "M-1.3 -4h2.6v2.7H4v2.6H1.3V4h-2.6V1.3H-4v-2.6h2.7z")
    if series == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" {paint}/>'
    return f'<path transform="translate({x:.1f} {y:.1f})" d="{shapes[series]}" {paint}/>'


def save(path, width, height, title, panels):
    body = "".join("".join(panel.body) for panel in panels)
    left = min(panel.box[0] for panel in panels)
    head = f'<text x="{left}" y="16" class="title">{html.escape(title)}</text>' if title else ""
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
                   f"<title>{html.escape(title)}</title><style>{STYLE}</style>{head}{body}</svg>\n")
