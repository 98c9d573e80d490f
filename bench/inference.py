#!/usr/bin/python3
"""Prefill and decode speed of dilmodeli beside llama.cpp's, on this machine, in turns: A B C A B C ...

The models are the shapes of `dilmodeli new --shape`, made once below ~/.cache/dilmodeli/bench. llama.cpp is the npm
package that `make peer` fetches; of it, prefill alone is measured, for its decode loop is JavaScript's. Any program that
understands llama-bench's options can be given besides (--llama-bench PROGRAM), and then decode is compared too.
Part `compressed`: gpt2-124m and llama-124m in 32-bit floats against what `dilmodeli quantize` makes of them, and against
--llama-bench on Q4_K_M.
Then dilmodeli alone: 8 sequences decoded at once against 1, decode after 4096 tokens with caches of 16 and 8 bits,
prefill with more threads against 1, resident memory.
Usage: bench/inference.py [BUILD] [--rounds N] [--only ...] [--shapes ...] [--types ...]; needs an otherwise idle machine.
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys

PEER = os.path.join(os.path.dirname(__file__), "..", "tests", "peer")
COLUMNS = ("prefill 128", "prefill 512", "decode 64")
PARTS = ("peers", "compressed", "batch", "depth", "scaling", "memory")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", nargs="?", default="build")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--shapes", nargs="+", default=["gpt2-124m", "fine-12l", "olmoe-4l"])
    parser.add_argument("--types", nargs="+", default=["q4_k_m", "q8_0"])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
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


def cache_file(name):
    folder = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "dilmodeli", "bench")
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, name)


def model_file(args, shape, kind):
    path = cache_file(f"{shape}-{kind}.gguf")
    if not os.path.exists(path):
        print(f"making {path}", file=sys.stderr)
        subprocess.run([f"{args.build}/dilmodeli", "new", path, "--shape", shape, "--type", kind], check=True,
                       stdout=subprocess.DEVNULL)
    return path


def ids_file():
    """Ids as often as words are (Zipf), so that sequences differ as texts do; the shapes share a vocabulary of 50257."""
    path = cache_file("zipf.ids")
    if not os.path.exists(path):
        draw = random.Random(1)
        ids = list(range(50257))
        draw.shuffle(ids)
        text = draw.choices(ids, [1 / (rank + 2.7) for rank in range(len(ids))], k=40000)
        with open(path, "w", encoding="ascii") as file:
            file.write(" ".join(map(str, text)))
    return path


def bench(args, path, *options):
    return objects_of(f"{args.build}/dilmodeli", "bench", path, "--threads", str(args.threads), "--rounds", "3", "--no-limits",
                      "--json", *options)[0]


def dilmodeli(args, path):
    short = bench(args, path, "--prompt", "128", "--decode", "64")
    long = bench(args, path, "--prompt", "512", "--decode", "0")
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


def compare(args, contestants, limit):
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
            report(path, results, limit)


def in_turns(args, ways):
    """Medians of all figures of several runs of `dilmodeli bench`, {name: (path, options)}, which take turns."""
    runs = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, (path, *options) in ways.items():
            runs[name].append(bench(args, path, *options))
    return {name: {key: statistics.median(run[key] for run in found) for key, value in found[0].items()
                   if isinstance(value, (int, float))} for name, found in runs.items()}


def compressed_file(args, shape, *options):
    """A shape in this program's own format; its weights are random, so how well they are chosen is all the same."""
    path = cache_file(shape + "".join(options).replace("--", "-") + ".gguf")
    if not os.path.exists(path):
        print(f"making {path}", file=sys.stderr)
        subprocess.run([f"{args.build}/dilmodeli", "quantize", model_file(args, shape, "f32"), path, *options, "--method", "rtn"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return path


def compress_shape(args, shape, limit):
    ways = {"f32": (dilmodeli, model_file(args, shape, "f32")), "q4_k_m": (dilmodeli, model_file(args, shape, "q4_k_m"))}
    for preset in ("low", "balanced", "high"):
        ways[preset] = (dilmodeli, compressed_file(args, shape, "--preset", preset))
    for bits in ("3.4", "3.7", "4.5"):
        ways[f"{bits} bits"] = (dilmodeli, compressed_file(args, shape, "--bpw", bits))
    if args.llama_bench:
        ways[os.path.basename(args.llama_bench) + " q4_k_m"] = (llama_bench, model_file(args, shape, "q4_k_m"))
    runs = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, (measure, path) in ways.items():
            try:
                runs[name].append(measure(args, path))
            except subprocess.CalledProcessError:
                if measure == dilmodeli:
                    raise
                runs[name].append(dict.fromkeys(COLUMNS, float("nan")))  # it does not run this model
    median = {name: {column: statistics.median(run[column] for run in found) for column in COLUMNS} for name, found in runs.items()}
    print(f"\n{shape} compressed; {', '.join(COLUMNS)}: tokens/s, and so many times those of f32")
    for name, (_, path) in ways.items():
        cells = "".join(f"{median[name][column]:9.0f} x{median[name][column] / median['f32'][column]:5.2f}" for column in COLUMNS)
        read = runs[name][0].get("bytes")
        share = f"  decode reads {median[name]['decode 64'] * read / (limit * 1e9):.0%} of {limit:.1f} GB/s" if read else ""
        print(f"{name:22s}{os.path.getsize(path) / 1e6:7.1f} MB{cells}{share}")


def measure_compressed(args, limit):
    for shape in ("gpt2-124m", "llama-124m"):
        compress_shape(args, shape, limit)


def measure_batch(args, limit):
    path = model_file(args, "fine-12l", "q4_k_m")
    options = ["--ids", ids_file(), "--prompt", "0", "--depth", "64", "--decode", "48", "--sequences"]
    results = in_turns(args, {n: (path, *options, str(n)) for n in (1, 2, 4, 8)})
    print("\nfine-12l, q4_k_m: sequences decoded at once, tokens/s of all")
    for n, result in results.items():
        share = result["decode_tps"] * (result["bytes_per_token"] + result["cache_bytes_per_token"]) / (limit * 1e9)
        print(f"{n:4d} {result['decode_tps']:8.0f}  x{result['decode_tps'] / results[1]['decode_tps']:.2f}, "
              f"{result['experts_per_step']:.1f} experts of a layer, {share:.0%} of {limit:.1f} GB/s")


def measure_depth(args, limit):
    options = ["--ids", ids_file(), "--prompt", "0", "--depth", "4096", "--decode", "48", "--cache"]
    for shape in ("llama-124m", "llama-124m-gqa"):
        path = model_file(args, shape, "q4_k_m")
        print(f"\n{shape}, q4_k_m: decode after 4096 tokens, tokens/s")
        for cache, result in in_turns(args, {cache: (path, *options, cache) for cache in ("f16", "q8")}).items():
            read = result["bytes_per_token"] + result["cache_bytes_per_token"]
            print(f"{cache:>4s} {result['decode_tps']:8.0f}  {read * 1e-6:.0f} MB a token, "
                  f"{result['decode_tps'] * read / (limit * 1e9):.0%} of {limit:.1f} GB/s")


def measure_scaling(args, _):
    print(f"\nprefill of 128 and decode of 64 with {args.threads} threads against 1")
    for shape in args.shapes:
        path = model_file(args, shape, "q4_k_m")
        results = in_turns(args, {n: (path, "--threads", str(n)) for n in (1, args.threads)})
        one, all_threads = results[1], results[args.threads]
        print(f"{shape:14s} prefill {one['prefill_tps']:7.0f} {all_threads['prefill_tps']:7.0f} "
              f"x{all_threads['prefill_tps'] / one['prefill_tps']:.2f}, decode {one['decode_tps']:6.0f} "
              f"{all_threads['decode_tps']:6.0f} x{all_threads['decode_tps'] / one['decode_tps']:.2f}")


def measure_memory(args, _):
    print("\nresident memory, MB, and its ratio to the file's size and the cache")
    for shape in args.shapes:
        memory = bench(args, model_file(args, shape, "q4_k_m"))["memory"]
        ratio = memory["resident"] / (memory["file_size"] + memory["cache"])
        print(f"{shape:14s} x{ratio:.2f} " + ", ".join(f"{name} {size * 1e-6:.0f}" for name, size in memory.items()))


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
    limit = peak["dram_read_gb_s"]
    print(f"{args.threads} threads; {json.dumps(peak)}")
    if "peers" in args.only:
        compare(args, contestants, limit)
    for part, measure in {"compressed": measure_compressed, "batch": measure_batch, "depth": measure_depth, "scaling": measure_scaling,
                          "memory": measure_memory}.items():
        if part in args.only:
            measure(args, limit)


if __name__ == "__main__":
    main()
