#!/usr/bin/python3
"""What huge pages behind the weights and threads bound to cores bring to decode, each switch on and off in turns: A B A B ...

The models are shapes of `dilmodeli new --shape`, made once below ~/.cache/dilmodeli/bench. A round runs every way once, from the
other end every other round, so that a machine that gets slower favours nobody. Given are medians over rounds of tokens/s, and of
the ratio to the usual way in the same round. --ik FOLDER: ik_llama.cpp's llama-bench too, built in FOLDER/build.
Usage: bench/placement.py [BUILD] [--rounds N] [--shapes ...] [--ik FOLDER] [--json]; needs an otherwise idle machine.
"""
import argparse
import json
import os
import statistics
import sys

import inference

WAYS = {"usual": (), "small pages": ("--huge-pages", "off"), "threads on cores": ("--bind", "cores"),
        "threads anywhere": ("--bind", "none")}
PEER = "ik_llama.cpp"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", nargs="?", default="build")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--decode", type=int, default=64, help="tokens of a run, three times each")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--shapes", nargs="+", default=["fine-12l", "olmoe-4l"])
    parser.add_argument("--type", default="q4_k_m")
    parser.add_argument("--ik", help="folder of ik_llama.cpp")
    parser.add_argument("--json", action="store_true", help="all figures, instead of a table")
    return parser.parse_args()


def peer(args, path):
    program = os.path.join(args.ik, "build", "bin", "llama-bench")
    runs = inference.objects_of(program, "-m", path, "-t", str(args.threads), "-p", "0", "-n", str(args.decode), "-r", "3",
                                "-rtr", "1", "-fmoe", "1", "-o", "json")
    return {"decode": runs[-1]["avg_ts"]}


def ours(args, path, options):
    result = inference.bench(args, path, "--prompt", "16", "--decode", str(args.decode), *options)
    return {"decode": result["decode_tps"], "huge": result["memory"]["huge"], "resident": result["memory"]["resident"]}


def measure(args, path):
    ways = list(WAYS) + ([PEER] if args.ik else [])
    runs = {way: [] for way in ways}
    for number in range(args.rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            runs[way].append(peer(args, path) if way == PEER else ours(args, path, WAYS[way]))
        print(f"{os.path.basename(path)}: round {number + 1} of {args.rounds}", file=sys.stderr)
    return runs


def report(path, runs):
    print(f"\n{os.path.basename(path)}; medians (range) of {len(runs['usual'])} rounds")
    print(f"{'':18s} {'decode, tokens/s':>26s} {'to usual':>9s} {'MiB on huge pages':>18s}")
    for way, taken in runs.items():
        speeds = [run["decode"] for run in taken]
        ratio = statistics.median(run["decode"] / usual["decode"] for run, usual in zip(taken, runs["usual"]))
        speed = f"{statistics.median(speeds):.1f} ({min(speeds):.1f} to {max(speeds):.1f})"
        huge = f"{taken[-1]['huge'] / 2**20:.0f} of {taken[-1]['resident'] / 2**20:.0f}" if "huge" in taken[-1] else "-"
        print(f"{way:18s} {speed:>26s} {ratio:9.3f} {huge:>18s}")


def main():
    args = arguments()
    results = {}
    for shape in args.shapes:
        path = inference.model_file(args, shape, args.type)
        results[shape] = measure(args, path)
        if not args.json:
            report(path, results[shape])
    if args.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
