#!/usr/bin/python3
"""What compression costs a model in divergence from itself, beside llama.cpp's quantizer and the methods of old.

Sections (--only):
  peers       at the sizes of K-quants with an importance matrix (llama-quantize of a folder given with --ik), of their mixtures and of
              ik_llama.cpp's own types, this program's files of at most the same bytes
  ladder      magnitude, Wanda, rounding to nearest, GPTQ's order, the game; its sweeps; neighbours 7, none, and any seven
  pruning     10, 30 and 50% of the tiles pruned, the others at 8 bits at most
  presets     low, balanced, high: size, perplexity, speed before and after
  time        seconds of calibration and of compression

Divergence (KL, nats per token) and perplexity are of `dilmodeli eval --base MODEL` on text that was not used for calibration. Figures
are kept below ~/.cache/dilmodeli/routing/compression: started again, the script goes on.

Usage: bench/compression.py PROGRAM MODEL CALIBRATION HELD-OUT [--ik FOLDER] [--only SECTION...]; texts are files, or folders of
which the same share of every file is taken. The speeds want an otherwise idle machine.
"""
import os
import statistics
import sys

import arguments
import kept

SECTIONS = ("peers", "ladder", "pruning", "presets", "time")
THEIRS = ("IQ2_KS", "IQ2_XS", "IQ2_K", "IQ2_S", "IQ2_M", "IQ2_KL", "IQ3_XXS", "IQ3_XS", "IQ3_KS", "IQ3_S", "IQ3_M", "IQ3_K", "IQ3_KL",
          "IQ4_KSS", "IQ4_KS", "IQ4_K", "IQ5_KS", "IQ5_K", "IQ6_K")  # that this program does not read: judged from what they decode to
TYPES = ("IQ2_K", "IQ2_KL", "Q2_K", "IQ3_K", "Q3_K_S", "Q3_K_M", "IQ4_KS", "IQ4_XS", "Q4_K_S", "IQ4_K", "Q4_K_M", "Q5_K_M")
HERE = os.path.join(kept.CACHE, "compression")


def read_arguments():
    parser = arguments.parser(__doc__, SECTIONS)
    parser.add_argument("model")
    parser.add_argument("calibration", help="text to calibrate on")
    parser.add_argument("text", help="held-out text")
    parser.add_argument("--ik", help="folder of llama.cpp or ik_llama.cpp whose build/bin has llama-quantize and llama-imatrix")
    parser.add_argument("--types", default=",".join(TYPES), help="of llama-quantize")
    parser.add_argument("--tokens", type=int, default=32768, help="of calibration")
    parser.add_argument("--bpw", type=arguments.numbers, default="2.6,3.4,4.5", help="of the ladder")
    parser.add_argument("--methods", default="magnitude,wanda,rtn,gptq,game")
    parser.add_argument("--options", default="", help="further options of quantize")
    return parser.parse_args()


class Measure:
    """One model, its statistics and its held-out text."""

    def __init__(self, args):
        self.args = args
        os.makedirs(HERE, exist_ok=True)
        self.store = kept.Store("compression", args.program, args.again)
        self.calibration = kept.text(args.calibration, 4 << 20)
        self.text = kept.text(args.text, args.limit)
        with open(self.text, "rb") as file:
            held = kept.digest(file.read(args.limit or -1))
        with open(self.calibration, "rb") as file:
            calibration = kept.digest(file.read())
        self.files = [kept.file_facts(args.model), held, calibration, args.tokens, args.ctx]
        self.read = [kept.file_facts(args.model), calibration, args.tokens]  # what statistics depend on
        self.stats = os.path.join(HERE, kept.digest(self.read) + ".stats")
        self.original = kept.object_of([args.program, "inspect", args.model, "--json"])

    def statistics(self):
        """Seconds that calibration took; the file is made where it is not there."""
        return self.store.get("calibrate", self.read, lambda: kept.object_of(
            [self.args.program, "calibrate", self.args.model, "--data", self.calibration, "--tokens", str(self.args.tokens), "--out",
             self.stats, "--imatrix", self.stats + ".dat", "--json"])) if not os.path.exists(self.stats) else None

    def judge(self, path):
        """Perplexity and divergence of a file."""
        found = kept.object_of([self.args.program, "eval", path, "--data", self.text, "--limit", str(self.args.limit), "--ctx",
                                str(self.args.ctx), "--base", self.args.model, "--json"])
        return {"kl": found["kl_mean"], "perplexity": found["perplexity"], "top1": found["top1_agreement"],
                "bytes": os.path.getsize(path)}

    def own(self, *options):
        """This program's quantize with these options, judged."""
        options = [*map(str, options), *self.args.options.split()]

        def measure():
            path = os.path.join(HERE, f"{kept.digest([self.files, options])}.gguf")
            done = kept.object_of([self.args.program, "quantize", self.args.model, path, "--calib", self.stats, *options, "--json"])
            result = {**self.judge(path), "quantize": done}
            os.remove(path)
            return result
        return self.store.get("quantize", [self.files, options], measure)

    def plain(self):
        """The model itself."""
        return self.store.get("plain", self.files, lambda: kept.object_of(
            [self.args.program, "eval", self.args.model, "--data", self.text, "--limit", str(self.args.limit), "--ctx",
             str(self.args.ctx), "--json"]))

    def peer(self, kind):
        """llama-quantize's file of a type, with an importance matrix of the same text."""
        tools = os.path.join(self.args.ik, "build", "bin")
        matrix = self.stats + ".theirs"

        def measure():
            if not os.path.exists(matrix):
                chunks = max(1, self.args.tokens // self.args.ctx)
                kept.call([os.path.join(tools, "llama-imatrix"), "-m", self.args.model, "-f", self.calibration, "-o", matrix, "-c",
                           str(self.args.ctx), "--chunks", str(chunks), "-t", "2"])
            path = os.path.join(HERE, f"{kept.digest([self.files, kind])}.gguf")
            quantize = os.path.join(tools, "llama-quantize")
            kept.call([quantize, "--imatrix", matrix, self.args.model, path, kind, "2"])
            size, readable = os.path.getsize(path), path
            if kind in THEIRS:
                readable = path + ".f32"
                kept.call([quantize, "--allow-requantize", path, readable, "F32", "2"])
                os.remove(path)
            result = {**self.judge(readable), "bytes": size}
            os.remove(readable)
            return result
        return self.store.get("peer", [self.files, kind], measure)


def row(name, found, base, against=None):
    return [name, f"{found['bytes'] / 1e6:.2f}", f"{found['kl']:.5f}", f"{found['kl'] / against:.3f}" if against else "-",
            f"{found['perplexity']:.4f}", f"{100 * (found['perplexity'] / base - 1):+.2f}%", f"{100 * found['top1']:.2f}%"]


HEAD = ["file", "MB", "KL", "times", "perplexity", "change", "same first choice"]


def command(args, section):
    return f"bench/compression.py {args.program} {kept.as_typed(args.model)} {kept.as_typed(args.calibration)} " \
           f"{kept.as_typed(args.text)} --only {section}" + (" --ik FOLDER" if section == "peers" else "")


def peers(measure, base):
    args = measure.args
    if not args.ik:
        print("peers: llama-quantize is not there (--ik FOLDER)", file=sys.stderr)
        return
    rows = []
    for kind in args.types.split(","):
        theirs = measure.peer(kind)
        rows.append(row(f"{kind}, imatrix", theirs, base, theirs["kl"]))
        for method in ("gptq", "game"):
            own = measure.own("--size", theirs["bytes"], "--method", method)
            rows.append(row(f"dilmodeli, {method}", own, base, theirs["kl"]))
    kept.table("Beside K-quants of at least the same size", command(args, "peers"), HEAD, rows)


def ladder(measure, base):
    args = measure.args
    for bpw in args.bpw:
        rows, before = [], None
        ways = [(name, ["--method", name]) for name in args.methods.split(",")]
        ways += [(f"game, {sweeps}", ["--method", "game", "--sweeps", sweeps.split()[0], *options])
                 for sweeps, options in (("1 sweep", []), ("8 sweeps", []), ("8 sweeps, all look in each", ["--neighbours", 0]),
                                         ("8 sweeps, any 7 neighbours", ["--random-neighbours"]))]
        for name, options in ways:
            found = measure.own("--bpw", bpw, *options)
            made = found["quantize"]
            looks = sum(sweep["proposals"] for sweep in made["sweeps"])
            rows.append(row(name, found, base, before) + [f"{made['error_after']:.4g}", f"{1e-6 * looks:.2f} M" if looks else "-"])
            before = found["kl"] if name in args.methods.split(",") else before
        kept.table(f"The ladder at {bpw} bits per weight; times: the step before, or the game", command(args, "ladder"),
                   HEAD + ["expected error", "tiles that looked"], rows)


def pruning(measure, base):
    rows = []
    for share in (0.1, 0.3, 0.5):
        for method in ("magnitude", "wanda", "gptq", "game"):
            found = measure.own("--width", 8, "--prune", share, "--method", method)
            rows.append(row(f"{share:.0%} pruned, {method}", found, base))
    kept.table("Pruning, the rest at 8 bits", command(measure.args, "pruning"), HEAD, rows)


def speed(measure, paths):
    """{name: [medians of prefill, decode]} in turns."""
    found = {name: ([], []) for name in paths}
    for _ in range(measure.args.rounds):
        for name, path in paths.items():
            result = kept.object_of([measure.args.program, "bench", path, "--rounds", "1", "--json"])
            found[name][0].append(result["prefill_tps"])
            found[name][1].append(result["decode_tps"])
    return {name: [statistics.median(values) for values in pair] for name, pair in found.items()}


def presets(measure, base):
    args = measure.args
    paths, rows = {"before": args.model}, []
    for preset in ("low", "balanced", "high"):
        found = measure.own("--preset", preset)
        rows.append(row(preset, found, base))
        paths[preset] = os.path.join(HERE, f"{preset}-{kept.digest(measure.files)}.gguf")
        if not os.path.exists(paths[preset]):
            kept.object_of([args.program, "quantize", args.model, paths[preset], "--calib", measure.stats, "--preset", preset,
                            *args.options.split(), "--json"])
    kept.table("Presets", command(args, "presets"), HEAD, rows)
    speeds, size = speed(measure, paths), os.path.getsize(args.model)
    kept.table("Before and after, in turns", command(args, "presets"),
               ["file", "MB", "of before", "prefill, tokens/s", "times", "decode, tokens/s", "times"],
               [[name, f"{os.path.getsize(path) / 1e6:.1f}", f"{os.path.getsize(path) / size:.1%}", f"{speeds[name][0]:.0f}",
                 f"{speeds[name][0] / speeds['before'][0]:.2f}", f"{speeds[name][1]:.0f}",
                 f"{speeds[name][1] / speeds['before'][1]:.2f}"] for name, path in paths.items()])


def timing(measure, _):
    made = measure.store.get("calibrate", measure.read, lambda: {"seconds": float("nan")})
    rows = [["calibration", f"{made['seconds']:.1f}"]]
    for method in ("rtn", "gptq", "game"):
        done = measure.own("--bpw", 3.4, "--method", method)["quantize"]
        rows.append([f"quantize, {method}", f"{done['seconds']:.1f}"])
    kept.table(f"Seconds, {measure.args.tokens} tokens of calibration", command(measure.args, "time"), ["step", "seconds"], rows)


def main():
    args = read_arguments()
    measure = Measure(args)
    measure.statistics()
    base = measure.plain()["perplexity"]
    print(f"perplexity of the model itself: {base:.4f}")
    for name, section in (("peers", peers), ("ladder", ladder), ("pruning", pruning), ("presets", presets), ("time", timing)):
        if name in args.only:
            section(measure, base)
    measure.store.tell()


if __name__ == "__main__":
    main()
