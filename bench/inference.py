#!/usr/bin/python3
"""Prefill and decode speed of dilmodeli beside llama.cpp's, on this machine, in turns: A B C A B C ...

The models are the shapes of `dilmodeli new --shape`, made once below ~/.cache/dilmodeli/bench. llama.cpp is the npm
package that `make peer` fetches; of it, prefill alone is measured, for its decode loop is JavaScript's. Any program that
understands llama-bench's options can be given besides (--llama-bench PROGRAM), and then decode is compared too.
Usage: bench/inference.py [BUILD] [--rounds N] [--shapes ...] [--types ...]; needs an otherwise idle machine.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

PEER = os.path.join(os.path.dirname(__file__), "..", "tests", "peer")
COLUMNS = ("prefill 128", "prefill 512", "decode 64")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", nargs="?", default="build")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--shapes", nargs="+", default=["gpt2-124m", "fine-12l", "olmoe-4l"])
    parser.add_argument("--types", nargs="+", default=["q4_k_m", "q8_0"])
    parser.add_argument("--llama-bench", help="another program to compare with, called as llama-bench is")
    parser.add_argument("--llama-bench-options", default="", help="further options for it")
    return parser.parse_args()


def objects_of(*command):
    """The JSON objects that a program prints, whatever it prints between them."""
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    objects, at = [], text.find("{")
    while at >= 0:
        value, end = json.JSONDecoder().raw_decode(text, at)
        objects.append(value)
        at = text.find("{", end)
    return objects


def model_file(args, shape, kind):
    folder = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "dilmodeli", "bench")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{shape}-{kind}.gguf")
    if not os.path.exists(path):
        print(f"making {path}", file=sys.stderr)
        subprocess.run([f"{args.build}/dilmodeli", "new", path, "--shape", shape, "--type", kind], check=True,
                       stdout=subprocess.DEVNULL)
    return path


def dilmodeli(args, path):
    command = [f"{args.build}/dilmodeli", "bench", path, "--threads", str(args.threads), "--rounds", "3", "--no-limits", "--json"]
    short = objects_of(*command, "--prompt", "128", "--decode", "64")[0]
    long = objects_of(*command, "--prompt", "512", "--decode", "0")[0]
    return {"prefill 128": short["prefill_tps"], "prefill 512": long["prefill_tps"], "decode 64": short["decode_tps"],
            "bytes": short["bytes_per_token"]}


def llama_cpp(args, path):
    speeds = objects_of("node", os.path.join(PEER, "prefill.mjs"), path, str(args.threads), "128", "512")[0]
    return {"prefill 128": speeds["128"], "prefill 512": speeds["512"]}


def llama_bench(args, path):
    runs = objects_of(args.llama_bench, "-m", path, "-t", str(args.threads), "-p", "128,512", "-n", "64", "-r", "2", "-o", "json",
                     *args.llama_bench_options.split())
    names = {(128, 0): "prefill 128", (512, 0): "prefill 512", (0, 64): "decode 64"}
    return {names[run["n_prompt"], run["n_gen"]]: run["avg_ts"] for run in runs}


def report(path, results, limit):
    print(f"\n{os.path.basename(path)}, {os.path.getsize(path) / 1e6:.0f} MB; medians (range), tokens/s")
    median = {name: {column: statistics.median(run[column] for run in runs if column in run) if column in runs[0] else None
                     for column in COLUMNS} for name, runs in results.items()}
    ours = median["dilmodeli"]
    for name, runs in results.items():
        cells = []
        for column in COLUMNS:
            if median[name][column] is None:
                cells.append(f"{'-':>30s}")
                continue
            values = [run[column] for run in runs]
            ratio = "" if name == "dilmodeli" else f"  x{ours[column] / median[name][column]:.2f}"
            cells.append(f"{median[name][column]:8.0f} ({min(values):.0f}-{max(values):.0f}){ratio}".rjust(30))
        print(f"{name:12s}" + "".join(cells))
    if limit:
        share = ours["decode 64"] * results["dilmodeli"][0]["bytes"] / (limit * 1e9)
        print(f"{'':12s}decode reads {share:.0%} of what {limit:.1f} GB/s allow")


def main():
    args = arguments()
    subprocess.run(["ninja", "-C", args.build, "dm-bench-peak"], check=True, stdout=subprocess.DEVNULL)
    contestants = {"dilmodeli": dilmodeli}
    if os.path.isdir(os.path.join(PEER, "node_modules")):
        contestants["llama.cpp"] = llama_cpp
    else:
        print("without llama.cpp: `make peer` fetches it")
    if args.llama_bench:
        contestants[os.path.basename(args.llama_bench)] = llama_bench
    peak = objects_of(f"{args.build}/bench/dm-bench-peak")[0]
    print(f"{args.threads} threads; {json.dumps(peak)}")
    print(f"{'':12s}" + "".join(f"{column:>30s}" for column in COLUMNS) + "   xN: dilmodeli is so many times as fast")
    for shape in args.shapes:
        for kind in args.types:
            path = model_file(args, shape, kind)
            results = {name: [] for name in contestants}
            for _ in range(args.rounds):
                for name, run in contestants.items():
                    try:
                        results[name].append(run(args, path))
                    except subprocess.CalledProcessError:
                        if name == "dilmodeli":
                            raise
                        results[name].append({})  # it does not run this model
            report(path, results, peak["dram_read_gb_s"])


main()
