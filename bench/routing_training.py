#!/usr/bin/python3
"""Ways to keep experts evenly used, trained beside one another: plain top-k, Switch's loss, loss-free biases, the Nash router.

The same model (the defaults of `dilmodeli train`: 22 M parameters), text and seeds for all. Runs of --tokens each for every
seed, then the two methods with the lowest validation loss (or --final-methods) at --final tokens; and, apart from these, the time
of a step, in turns A B C A B C. Tables go to standard output, a picture to docs/routing-training.svg.

The text is a slice of the reference corpus (`scripts/reference`), the same share of every domain, of 32 MB to train and 1 MB to
validate, below ~/.cache/dilmodeli/routing, where runs and results are kept too: started again, the script goes on.

Usage: bench/routing_training.py PROGRAM [--only train final timing]; timing wants an otherwise idle machine.
"""
import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile

import chart
import kept

NAMES = {"plain": "plain top-k", "switch": "Switch loss", "loss-free": "loss-free", "nash": "Nash",
         "nash-losses": "Nash + losses"}
METHODS = {
    "plain": ["--balance", "none"],
    "switch": ["--balance", "switch"],
    "loss-free": ["--balance", "loss-free", "--bias-rate", "0.001"],
    "nash": ["--router", "nash", "--balance", "none"],
    "nash-losses": ["--router", "nash", "--balance", "none", "--balance-loss", "0.1", "--cache-reward", "0.05",
                    "--swarm-reward", "0.03", "--nash-loss", "0.02"],
}
SERIES = {method: i for i, method in enumerate(METHODS)}
PARTS = ("train", "final", "timing")
END = b"<|endoftext|>\n"
TRAIN_BYTES, VALID_BYTES = 32e6, 1e6
DEAD = 0.01       # of the mean load
LAST = 0.2        # of the steps, whose MaxVio counts
WARMUP = 5        # steps whose time does not count
HERE = os.path.dirname(os.path.abspath(__file__))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("--tokens", default="1M")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--final", default="8M", help="tokens of the last runs; 0: none")
    parser.add_argument("--final-methods", help="instead of the two best")
    parser.add_argument("--final-seeds", default="1")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--precision", default="bf16", choices=("bf16", "f32"))
    parser.add_argument("--train-options", default="", help="further options of all runs, such as '--threads 2'")
    parser.add_argument("--nash-options", default="", help="further options of the Nash runs, such as '--beta 0.5'")
    parser.add_argument("--rounds", type=int, default=3, help="of timing")
    parser.add_argument("--steps", type=int, default=20, help="of a timed run")
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    parser.add_argument("--svg", default=os.path.join(HERE, "..", "docs", "routing-training.svg"))
    args = parser.parse_args()
    args.methods = args.methods.split(",")
    unknown = set(args.methods + (args.final_methods or "plain").split(",")) - set(METHODS)
    if unknown:
        parser.error(f"unknown method {unknown.pop()}, expected some of {', '.join(METHODS)}")
    if args.steps <= WARMUP:
        parser.error(f"--steps expects more than the {WARMUP} that are not timed")
    return args


# ---- Text ----

def slice_of(folder, out, limit):
    """The first part of each file, up to the end of a document, the same share of all, `limit` bytes together."""
    if os.path.isdir(out):
        return
    files = sorted(os.listdir(folder))
    share = min(1.0, limit / sum(os.path.getsize(os.path.join(folder, name)) for name in files))
    os.makedirs(out + ".part", exist_ok=True)
    for name in files:
        with open(os.path.join(folder, name), "rb") as file:
            text = file.read()
        wanted = round(len(text) * share)
        end = text.rfind(END, 0, wanted)
        text = text[:end + len(END)] if end >= 0 else text[:text.find(END) + len(END) or len(text)]
        with open(os.path.join(out + ".part", name), "wb") as file:
            file.write(text)
    os.rename(out + ".part", out)


def prepare_text():
    """Folders of text {purpose: (train, valid)}, and the tokenizer."""
    reference = os.path.join(kept.CACHE, "reference")
    corpus, tokenizer = os.path.join(reference, "corpus"), os.path.join(reference, "tokenizer.gguf")
    if not os.path.isdir(corpus) or not os.path.exists(tokenizer):
        sys.exit(f"{corpus} or {tokenizer} is missing: scripts/reference makes them")
    text = os.path.join(kept.FOLDER, "text")
    folders = {"long": (os.path.join(text, "train"), os.path.join(text, "valid")),
               "short": (os.path.join(text, "short-train"), os.path.join(text, "short-valid"))}
    for (train, valid), scale in zip(folders.values(), (1, 0.06)):
        slice_of(os.path.join(corpus, "train"), train, TRAIN_BYTES * scale)
        slice_of(os.path.join(corpus, "valid"), valid, VALID_BYTES * scale)
    return folders, tokenizer


# ---- Runs ----

class Trainer:
    def __init__(self, args):
        self.args = args
        self.text, self.tokenizer = prepare_text()
        self.store = kept.Store("training", args.program, args.again)
        self.tokens = os.path.join(kept.FOLDER, "tokens")

    def options(self, method):
        nash = self.args.nash_options.split() if method.startswith("nash") else []
        return METHODS[method] + nash + ["--precision", self.args.precision] + self.args.train_options.split()

    def command(self, method, text, *more):
        train, valid = self.text[text]
        return [self.args.program, "train", "--data", train, "--valid", valid, "--tokenizer", self.tokenizer,
                *self.options(method), "--sample-every", "0", "--json", *more]

    def link_tokens(self, source, target):
        """The encoded text of one folder in another too: whoever replaces a file there replaces the link alone."""
        os.makedirs(target, exist_ok=True)
        for name in ("train.tokens", "valid.tokens"):
            there, here = os.path.join(source, name), os.path.join(target, name)
            if os.path.exists(there) and not os.path.exists(here):
                os.link(there, here)

    def train(self, method, tokens, seed, *more):
        """Metrics of a whole run; an interrupted one goes on."""
        options = ["--tokens", tokens, "--seed", seed, *more]
        facts = [self.options(method), options, TRAIN_BYTES, VALID_BYTES]
        name = f"{method}-{tokens}-{seed}"
        return self.store.get(name, facts, lambda: self.run(method, f"{name}-{kept.digest(facts)}", options))

    def run(self, method, name, options):
        folder = os.path.join(kept.FOLDER, "runs", name)
        if self.args.again:
            shutil.rmtree(folder, ignore_errors=True)
        shared = os.path.exists(os.path.join(self.tokens, "valid.tokens"))
        self.link_tokens(self.tokens, folder)
        _, log = kept.call(self.command(method, "long", "--out", folder, "--export-type", "bf16", *options))
        if "encoded " in log:
            if shared:
                print(f"the text had to be encoded again: {self.tokens} is of another one", file=sys.stderr)
                shutil.rmtree(self.tokens)
            self.link_tokens(folder, self.tokens)
        for name in ("checkpoint.gguf", "train.tokens", "valid.tokens"):
            if os.path.exists(os.path.join(folder, name)):
                os.remove(os.path.join(folder, name))
        return summary(os.path.join(folder, "metrics.jsonl"))

    def time(self, methods, turn):
        """{method: times}, a short run of each after another; kept as a whole, for what is compared belongs to one time."""
        steps = ["--steps", str(self.args.steps), "--valid-every", "0", "--save-every", "0"]
        facts = [{method: self.options(method) for method in methods}, steps, turn]
        return self.store.get(f"timing-{turn}", facts, lambda: {method: self.time_run(method, steps) for method in methods})

    def time_run(self, method, steps):
        """Seconds of each step but the first ones, and of its routing."""
        folder = tempfile.mkdtemp(dir=kept.FOLDER)
        try:
            shared = os.path.join(kept.FOLDER, "tokens-short")
            self.link_tokens(shared, os.path.join(folder, "run"))
            kept.call(self.command(method, "short", "--out", os.path.join(folder, "run"), *steps))
            self.link_tokens(os.path.join(folder, "run"), shared)
            lines = [line for line in read(os.path.join(folder, "run", "metrics.jsonl")) if "tokens_per_s" in line]
        finally:
            shutil.rmtree(folder)
        step_tokens = lines[1]["tokens"] - lines[0]["tokens"]
        lines = lines[WARMUP:]
        return {"step_s": [step_tokens / line["tokens_per_s"] for line in lines],
                "router_s": [line["router_s"] for line in lines if "router_s" in line]}


def read(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def summary(path):
    """What is told of a run, from its metrics.jsonl. Its last validation reads all of the held-out text."""
    lines = read(path)
    steps = [line for line in lines if "loss" in line]
    valid = [line for line in lines if "val_loss" in line]
    last, loads = valid[-1], valid[-1]["val_loads"]
    means = [sum(layer) / len(layer) for layer in loads]
    # the loads of each layer from the most to the least, over the layer's mean, averaged over layers
    ranked = zip(*(sorted((load / mean for load in layer), reverse=True) for layer, mean in zip(loads, means)))
    late = steps[-max(1, round(LAST * len(steps))):]
    return {"steps": len(steps), "val_tokens": last["val_tokens"], "val_loss": last["val_loss"], "val_bpb": last["val_bpb"],
            "val_maxvio": last["val_maxvio"],
            "dead": sum(load < DEAD * mean for layer, mean in zip(loads, means) for load in layer),
            "experts": sum(map(len, loads)), "ranked_loads": [statistics.fmean(rank) for rank in ranked],
            "course": [(line["step"], line["val_loss"]) for line in valid],
            "late": {name: statistics.fmean(line[name] for line in late) for name in steps[-1]}}


# ---- Tables ----

def row_of(method, runs, plain):
    def figure(key, style=".3f"):
        return kept.mean_range([run[key] for run in runs.values()], style)
    maxvio = kept.mean_range([run["late"]["maxvio"] for run in runs.values()])
    against = [] if runs is plain else [run["val_loss"] - plain[seed]["val_loss"] for seed, run in runs.items() if seed in plain]
    dead = [run["dead"] for run in runs.values()]
    experts = next(iter(runs.values()))["experts"]
    return [NAMES[method], figure("val_loss", ".4f"), kept.mean_range(against, "+.4f"), figure("val_bpb", ".4f"),
            maxvio, figure("val_maxvio"), f"{'-'.join(map(str, sorted({min(dead), max(dead)})))} of {experts}"]


def tell_runs(args, title, results, part):
    plain = results.get("plain", {})
    count = len(next(iter(results.values())))
    head = ["", "validation loss, nats", "less plain's, same seed", "bits per byte", "MaxVio per batch, last fifth of steps",
            "MaxVio over the held-out text", "dead experts"]
    kept.table(f"{title}; mean (range) of {count} seeds" if count > 1 else title,
               f"bench/routing_training.py {kept.as_typed(args.program)} --only {part}", head,
               [row_of(method, runs, plain) for method, runs in results.items()])


GAMES = {"sweeps": ("sweeps of a game", ".2f"), "max_regret": ("largest regret", ".2g"), "balance_loss": ("L_balance", ".4f"),
         "cache_reward": ("R_cache", ".4f"), "swarm_reward": ("R_swarm", ".4f"), "nash_loss": ("L_nash", ".4f")}


def tell_games(args, results):
    """What the games and the loss's terms came to, where there were any."""
    rows = []
    for method, runs in results.items():
        late = [run["late"] for run in runs.values()]
        if any(name in late[0] for name in GAMES):
            rows.append([NAMES[method]] + [kept.mean_range([of[name] for of in late if name in of], style)
                                           for name, (_, style) in GAMES.items()])
    if rows:
        kept.table(f"Games and terms of the loss in the last fifth of {args.tokens} tokens' steps, mean (range) over seeds",
                   f"bench/routing_training.py {kept.as_typed(args.program)} --only train",
                   ["", *(name for name, _ in GAMES.values())], rows)


def tell_timing(args, times):
    """times: {method: [a result per round]}. Ratios are of medians within a round."""
    rows = []
    for method, rounds in times.items():
        medians = [statistics.median(run["step_s"]) for run in rounds]
        ratios = [mine / statistics.median(plain["step_s"]) for mine, plain in zip(medians, times.get("plain", []))]
        shares = [sum(run["router_s"]) / sum(run["step_s"]) for run in rounds if run["router_s"]]
        rows.append([NAMES[method], kept.mean_range([1e3 * median for median in medians], ".0f"), kept.mean_range(ratios),
                     kept.mean_range(shares, ".1%")])
    kept.table(f"Time of a step, {args.precision}, {args.rounds} rounds in turns of {args.steps - WARMUP} timed steps each; "
               "mean (range) of the rounds' medians", f"bench/routing_training.py {kept.as_typed(args.program)} --only timing",
               ["", "a step, ms", "times plain", "routing's share of the step"], rows)


# ---- The picture ----

TOP, HEIGHT = 56, 200


def strip(left, results, key, label, from_zero):
    """A mark per run and the range of each method."""
    values = {method: [run[key] for run in runs.values()] for method, runs in results.items()}
    y_range = chart.around([value for runs in values.values() for value in runs], from_zero)
    panel = chart.Panel((left, TOP, 178, HEIGHT), (-0.6, len(values) - 0.4), y_range, "", label,
                        [(i, f"{i + 1}") for i, _ in enumerate(values)])
    for i, (method, runs) in enumerate(values.items()):
        panel.span(i, min(runs), max(runs), SERIES[method])
        panel.marks([(i, value) for value in runs], SERIES[method])
    return panel


def loads(left, results):
    """How the loads fall from the busiest expert to the idlest, mean over layers and seeds."""
    ranks = {method: [statistics.fmean(rank) for rank in zip(*(run["ranked_loads"] for run in runs.values()))]
             for method, runs in results.items()}
    count = len(next(iter(ranks.values())))
    panel = chart.Panel((left, TOP, 220, HEIGHT), (1, count), chart.around([max(rank) for rank in ranks.values()], True),
                        "expert of a layer, by load", "load over the mean load",
                        [(1, "1"), (count / 2, f"{count // 2}"), (count, f"{count}")])
    for method, rank in ranks.items():
        panel.line(list(enumerate(rank, 1)), SERIES[method])
    panel.rule("even", y=1.0)
    return panel


def draw(path, results):
    panels = [strip(56, results, "val_loss", "validation loss, nats", False),
              strip(290, results, "val_maxvio", "MaxVio, held-out text", True), loads(524, results)]
    for i, method in enumerate(results):
        panels[0].sign(62 + 138 * i, TOP + HEIGHT + 46, SERIES[method], f"{i + 1} {NAMES[method]}")
    chart.save(path, 760, TOP + HEIGHT + 62, "Balance of experts in training", panels)


def main():
    args = arguments()
    trainer = Trainer(args)
    results = {}
    if "train" in args.only or ("final" in args.only and not args.final_methods):
        found = {}
        for seed in args.seeds.split(","):  # seed by seed, so that what is stopped early compares all methods
            for method in args.methods:
                found[method, seed] = trainer.train(method, args.tokens, seed, "--valid-every", "0")
        results = {method: {seed: found[method, seed] for seed in args.seeds.split(",")} for method in args.methods}
        tell_runs(args, f"{args.tokens} tokens, {args.precision}", results, "train")
        tell_games(args, results)
        draw(args.svg, results)
    if "final" in args.only and args.final != "0":
        by_loss = sorted(results, key=lambda method: statistics.fmean(run["val_loss"] for run in results[method].values()))
        best = args.final_methods.split(",") if args.final_methods else by_loss[:2]
        found = {method: {seed: trainer.train(method, args.final, seed, "--valid-every", "200")
                          for seed in args.final_seeds.split(",")} for method in best}
        tell_runs(args, f"{args.final} tokens, {args.precision}", found, "final")
    if "timing" in args.only:
        rounds = [trainer.time(args.methods, turn) for turn in range(args.rounds)]
        tell_timing(args, {method: [found[method] for found in rounds] for method in args.methods})
    trainer.store.tell()


main()
