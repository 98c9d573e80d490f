#!/usr/bin/python3
"""Training speed of dilmodeli beside PyTorch's, on this machine, in turns: A B C A B C ...

Both train the shape of bench/pytorch_train.py on meaningless text of the same length. A figure is the median over all
timed steps of all rounds. Usage: bench/train.py [BUILD] [--rounds N] [--steps N]; needs an otherwise idle machine.
"""
import argparse
import glob
import json
import os
import random
import statistics
import subprocess
import tempfile

LAYERS, DIM, HEADS, KV_HEADS, HEAD_DIM = 6, 256, 4, 2, 64
EXPERTS, TOP_K, EXPERT_DIM, VOCAB, CONTEXT, BATCH = 32, 4, 128, 8192, 256, 16
WARMUP = 2

# Floating-point operations of one token, forward and backward: 2 + 4 for each weight that it meets in a product (the
# router and the chosen experts, not all of them; the tied embedding once, as the output), and for the attention
# 3 * (2 + 2) * head width for each of the context / 2 positions that a token sees on average.
ACTIVE = LAYERS * ((2 * HEADS + 2 * KV_HEADS) * HEAD_DIM * DIM + EXPERTS * DIM + TOP_K * 3 * DIM * EXPERT_DIM) + VOCAB * DIM
FLOPS_PER_TOKEN = 6 * ACTIVE + LAYERS * 12 * HEADS * HEAD_DIM * CONTEXT // 2


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", nargs="?", default="build")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="timed steps of a run")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def write_text(path, megabytes):
    """Words drawn from 20,000 made-up ones: enough for a vocabulary of 8192."""
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(20000)]
    with open(path, "w") as file:
        for _ in range(int(megabytes * 1e6) // 650):
            file.write(" ".join(draw.choices(words, k=100)) + "\n")


def dilmodeli(args, folder, precision):
    """Seconds per token of each timed step."""
    run = tempfile.mkdtemp(dir=folder)
    subprocess.run(
        [f"{args.build}/dilmodeli", "train", "--data", f"{folder}/train.txt", "--valid", f"{folder}/valid.txt",
         "--tokenizer", f"{folder}/tokenizer.gguf", "--out", run, "--threads", str(args.threads), "--precision", precision,
         "--steps", str(WARMUP + args.steps), "--valid-every", "0", "--sample-every", "0", "--save-every", "0",
         "--balance", "switch", "--layers", str(LAYERS), "--dim", str(DIM), "--heads", str(HEADS),
         "--kv-heads", str(KV_HEADS), "--head-dim", str(HEAD_DIM), "--experts", str(EXPERTS), "--top-k", str(TOP_K),
         "--expert-dim", str(EXPERT_DIM), "--context", str(CONTEXT), "--batch", str(BATCH), "--json"],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open(f"{run}/metrics.jsonl") as file:
        rates = [line["tokens_per_s"] for line in map(json.loads, file) if "tokens_per_s" in line]
    return rates[WARMUP:]


def pytorch(args, *options):
    script = os.path.join(os.path.dirname(__file__), "pytorch_train.py")
    out = subprocess.run(["/usr/bin/python3", script, "--steps", str(args.steps), "--warmup", str(WARMUP),
                          "--threads", str(args.threads), *options], check=True, stdout=subprocess.PIPE).stdout
    return json.loads(out)["rates"]


def main():
    args = arguments()
    subprocess.run(["ninja", "-C", args.build, "dm-bench-peak"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as folder:
        write_text(f"{folder}/train.txt", 4)
        write_text(f"{folder}/valid.txt", 0.01)
        subprocess.run([f"{args.build}/dilmodeli", "tokenizer", "train", "--data", f"{folder}/train.txt", "--vocab", str(VOCAB),
                        "--out", f"{folder}/tokenizer.gguf"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        contestants = {
            "dilmodeli f32": lambda: dilmodeli(args, folder, "f32"),
            "dilmodeli bf16": lambda: dilmodeli(args, folder, "bf16"),
            "PyTorch, tuned": lambda: pytorch(args),
        }
        if glob.glob("/usr/lib/*/openblas-pthread"):
            # The packages' default OpenBLAS, and products through autograd alone.
            contestants["PyTorch, plain"] = lambda: pytorch(args, "--blas", "pthread", "--moe", "unbind", "--system-malloc")
        peaks, rates = [], {name: [] for name in contestants}
        for _ in range(args.rounds):
            peaks.append(measured_peak(args))
            for name, run in contestants.items():
                rates[name] += run()
    report(args, peaks, rates)


def measured_peak(args):
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    return json.loads(subprocess.run([f"{args.build}/bench/dm-bench-peak"], check=True, stdout=subprocess.PIPE, env=environment).stdout)


def report(args, peaks, rates):
    peak = max(p["fp32_gflops"] for p in peaks)
    bf16 = max(p["bf16_gflops"] or 0 for p in peaks)
    print(f"{args.threads} threads, {args.rounds} rounds of {args.steps} steps of {BATCH * CONTEXT} tokens, "
          f"{FLOPS_PER_TOKEN / 1e6:.1f} million operations per token")
    print(f"peak of the machine: fp32 {peak} GFLOP/s, bf16 {bf16 or 'not in hardware'}")
    print("                  tokens/s   (slowest, fastest)   GFLOP/s   of fp32 peak   of bf16 peak   times PyTorch tuned, plain")
    median = {name: statistics.median(values) for name, values in rates.items()}
    for name, value in median.items():
        gflops = value * FLOPS_PER_TOKEN / 1e9
        ratios = "  ".join(f"{value / median[peer]:.2f}" for peer in median if peer.startswith("PyTorch"))
        print(f"{name:16s} {value:9.0f} {min(rates[name]):11.0f} {max(rates[name]):9.0f} {gflops:9.1f} {gflops / peak:14.0%} "
              f"{f'{gflops / bf16:.0%}' if bf16 and 'bf16' in name else '-':>14s}   {ratios}")


main()
