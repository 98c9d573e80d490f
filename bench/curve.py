#!/usr/bin/python3
"""The course of a training run as a small SVG: loss per step, validation in bits per byte, MaxVio.

Usage: bench/curve.py RUN/metrics.jsonl OUT.svg [TITLE]
"""
import json
import sys

import chart

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 306, 56, 16, 46, 44
GAP = 60
LOSS, BITS, BALANCE = 1, 2, 4
MOST_LOSS, MOST_MAXVIO = 10, 8


def read(path):
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]

    def column(key, most):
        return [(line["step"], min(line[key], most)) for line in lines if line.get(key) is not None]
    return column("loss", MOST_LOSS), column("val_bpb", MOST_LOSS), column("maxvio", MOST_MAXVIO)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    loss, bits, maxvio = read(sys.argv[1])
    steps = max(step for step, _ in loss)
    whole = WIDTH - LEFT - RIGHT
    width = (whole - GAP) / 2 if maxvio else whole
    panels = [chart.Panel((LEFT, TOP, width, HEIGHT - TOP - BOTTOM), (0, steps), (0, MOST_LOSS), "steps",
                          "loss, nats per token (line); held-out text (marks)")]
    panels[0].line(loss, LOSS)
    panels[0].marks(bits, BITS)
    if bits:
        panels[0].note(*bits[-1], f"{bits[-1][1]:.2f} bits per byte", -8, -9, "end")
    if maxvio:
        panels.append(chart.Panel((LEFT + width + GAP, TOP, width, HEIGHT - TOP - BOTTOM), (0, steps), (0, MOST_MAXVIO), "steps",
                                  "MaxVio per batch, mean over layers"))
        panels[1].line(maxvio, BALANCE, solid=True)
    chart.save(sys.argv[2], WIDTH, HEIGHT, sys.argv[3] if len(sys.argv) > 3 else "", panels)


main()
