#!/usr/bin/python3
"""The course of a training run as a small SVG: loss per step, validation in bits per byte, MaxVio.

Usage: bench/curve.py RUN/metrics.jsonl OUT.svg [TITLE]
"""
import html
import json
import sys

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 300, 56, 16, 40, 44
GAP = 60


def read(path):
    with open(path) as file:
        lines = [json.loads(line) for line in file]
    column = lambda key: [(line["step"], line[key]) for line in lines if line.get(key) is not None]
    return column("loss"), column("val_bpb"), column("maxvio")


class Panel:
    """One diagram: x from 0 to the last step, y from 0 up."""

    def __init__(self, x, width, steps, top, label):
        self.x, self.width, self.steps, self.top, self.label = x, width, steps, top, label

    def point(self, step, value):
        height = HEIGHT - TOP - BOTTOM
        return (self.x + self.width * step / self.steps, HEIGHT - BOTTOM - height * min(value / self.top, 1))

    def axes(self):
        x0, y0 = self.point(0, 0)
        out = [f'<path d="M{x0} {TOP}V{y0}H{x0 + self.width}" class="axis"/>',
               f'<text x="{x0}" y="{TOP - 10}" class="label">{html.escape(self.label)}</text>',
               f'<text x="{x0 + self.width}" y="{y0 + 34}" class="end">steps</text>']
        for i in range(1, 5):
            _, y = self.point(0, self.top * i / 4)
            out.append(f'<path d="M{x0} {y:.1f}h{self.width}" class="grid"/>'
                       f'<text x="{x0 - 6}" y="{y + 4:.1f}" class="end">{self.top * i / 4:g}</text>')
        for i in (1, 2):
            x, _ = self.point(self.steps * i / 2, 0)
            out.append(f'<text x="{x:.1f}" y="{y0 + 17}" class="end">{self.steps * i // 2}</text>')
        return "".join(out)

    def line(self, points, style):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.point(*p) for p in points))
        return f'<polyline points="{path}" class="{style}"/>'

    def dots(self, points, style):
        out = []
        for step, value in points:
            x, y = self.point(step, value)
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="{style}"/>')
        if points:
            out.append(f'<text x="{x - 8:.1f}" y="{y - 9:.1f}" class="end">{value:.2f} bits per byte</text>')
        return "".join(out)


STYLE = """text{font:12px sans-serif;fill:#57606a}.label{font-weight:600}.end{text-anchor:end}.title{font:600 14px sans-serif}
.axis{stroke:#57606a;fill:none}.grid{stroke:#8c959f;opacity:.25}polyline{fill:none;stroke-width:1.5}
.loss{stroke:#0969da}.bpb{fill:#bc4c00}.balance{stroke:#8250df}"""


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    loss, bpb, maxvio = read(sys.argv[1])
    steps = max(step for step, _ in loss)
    width = (WIDTH - LEFT - RIGHT - GAP) * (1 if not maxvio else 0.5) + (0 if maxvio else GAP)
    left = Panel(LEFT, width, steps, 10, "loss, nats per token (line); held-out text (dots)")
    body = left.axes() + left.line(loss, "loss") + left.dots(bpb, "bpb")
    if maxvio:
        right = Panel(LEFT + width + GAP, width, steps, 8, "MaxVio per batch, mean over layers")
        body += right.axes() + right.line(maxvio, "balance")
    title = f'<text x="{LEFT}" y="14" class="title">{html.escape(sys.argv[3])}</text>' if len(sys.argv) > 3 else ""
    with open(sys.argv[2], "w") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
                   f"<style>{STYLE}</style>{title}{body}</svg>\n")


main()
