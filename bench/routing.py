#!/usr/bin/python3
"""What the Nash router saves of a trained mixture of experts, and what that costs in perplexity.

Sections (--only):
  adaptive  fewer experts for a token that needs fewer, beside plain top-k with a smaller k
  batch     sequences decoded together that share experts; their speed in turns with that of the model's own routing
  chunk     tokens of a prompt that share experts, a chunk at a time, judged by the text after it
  resident  memory for half and a quarter of the experts, beside LRU under the model's own routing
  ablation  parts of the router taken out one by one
  sleep     experts that hardly a token wants put aside

Every figure is of `dilmodeli eval` or `dilmodeli bench` and is kept below ~/.cache/dilmodeli/routing: started again, the script
goes on. Tables go to standard output, pictures to docs/routing-*.svg (that of batch and chunk when both are asked for).

Usage: bench/routing.py PROGRAM MODEL TEXT [--limit BYTES] [--only SECTION...]; the speeds want an otherwise idle machine.
"""
import math
import os
import statistics
import sys

import arguments
import chart
import kept

SECTIONS = ("adaptive", "batch", "chunk", "resident", "ablation", "sleep")
HERE = os.path.dirname(os.path.abspath(__file__))
BUDGET = 0.01  # of perplexity, that a saving may cost
NASH = ["--router", "nash"]  # and what --game adds


def read_arguments():
    parser = arguments.parser(__doc__, SECTIONS)
    parser.add_argument("model")
    parser.add_argument("text", help="a file, or a folder of which the same share of every file is taken")
    parser.add_argument("--gammas", type=arguments.numbers, default="0.02,0.05,0.1,0.15,0.2,0.3,0.5,0.8,1.2")
    parser.add_argument("--thetas", type=arguments.numbers, default="0.02,0.05,0.1,0.15,0.2,0.3,0.4,0.5,0.6,0.8")
    parser.add_argument("--sleeps", type=arguments.numbers, default="0.05,0.1,0.2,0.3,0.5,0.7")
    parser.add_argument("--sequences", type=int, default=8, help="of a batch")
    parser.add_argument("--joint", type=int, default=32, help="tokens of a chunk")
    parser.add_argument("--options", default="", help="further options of eval and bench, such as '--threads 2'")
    parser.add_argument("--game", default="", help="further options of the game, such as '--payoff affinity'")
    parser.add_argument("--decode", type=int, default=64, help="tokens of each sequence in a timed run")
    parser.add_argument("--no-speed", action="store_true", help="perplexities alone")
    parser.add_argument("--svg", default=os.path.join(HERE, "..", "docs"), help="folder of the pictures")
    return parser.parse_args()


# ---- Measuring ----

class Measure:
    """Runs of the program on one model and text."""

    def __init__(self, args):
        self.args = args
        self.store = kept.Store("inference", args.program, args.again)
        shape = kept.object_of([args.program, "inspect", args.model, "--json"])["shape"]
        self.experts, self.top_k = shape["experts"], shape["top_k"]
        if self.experts < 2:
            sys.exit(f"{args.model} is no mixture of experts")
        self.text = kept.text(args.text, args.limit)
        with open(self.text, "rb") as file:
            self.files = [kept.file_facts(args.model), kept.digest(file.read(args.limit or -1))]

    def eval(self, *options, context=None):
        """{"perplexity", "nll", .., "routing": {..}}"""
        command = ["--limit", str(self.args.limit), "--ctx", str(context or self.args.ctx), *self.args.options.split(),
                   *map(str, options)]
        return self.store.get("eval", self.files + command, lambda: kept.object_of(
            [self.args.program, "eval", self.args.model, "--data", self.text, *command, "--json"]))

    def bench(self, command):
        return kept.object_of([self.args.program, "bench", self.args.model, "--data", self.text, *command, "--json"])

    def in_turns(self, ways):
        """{name: [what a round gave]} of {name: options}. Rounds are kept whole: never one way's now and another's next week."""
        common = ["--prompt", "0", "--depth", "64", "--decode", str(self.args.decode), "--rounds", "3", "--no-limits",
                  *self.args.options.split()]
        commands = {name: common + list(map(str, options)) for name, options in ways.items()}
        rounds = [self.store.get("bench", self.files + [commands, turn],
                                 lambda: {name: self.bench(command) for name, command in commands.items()})
                  for turn in range(self.args.rounds)]
        return {name: [found[name] for found in rounds] for name in ways}


class Point:
    """One setting of a sweep: how much it uses, and what that costs in perplexity against the model's own choice."""

    def __init__(self, value, result, own, use):
        self.value, self.routing, self.perplexity = value, result["routing"], result["perplexity"]
        self.change = self.perplexity / own["perplexity"] - 1
        self.use = use(result)


def experts_per_token(result):
    return result["routing"]["experts_per_token"]


def experts_per_step(result):
    return result["routing"]["experts_per_step"]


def hit_rate(routing):
    return routing["hit_rate"]["ram"]


def fetches(result):
    """Experts of a layer that were not there when a token asked for them."""
    return (1 - hit_rate(result["routing"])) * experts_per_token(result)


def asleep(result):
    return result["routing"]["asleep"]


def crossing(points, budget=BUDGET):
    """Neighbours in the sweep between which perplexity leaves the budget; None where it does not."""
    points = sorted(points, key=lambda point: point.value)
    return next(((a, b) for a, b in zip(points, points[1:]) if a.change <= budget < b.change), None)


def at_budget(points, budget=BUDGET):
    """Use and setting at exactly the budget, on the straight line between these neighbours; None without them."""
    pair = crossing(points, budget)
    if pair is None:
        return None
    before, after = pair
    share = (budget - before.change) / (after.change - before.change)
    return before.use + share * (after.use - before.use), before.value + share * (after.value - before.value)


def within(points, budget=BUDGET):
    """The point of the least use among those inside the budget."""
    return min((point for point in points if point.change <= budget), key=lambda point: point.use, default=None)


def refine(measure_point, points, steps=5):
    """Adds points that halve the way between the last setting within the budget and the next."""
    for _ in range(steps):
        pair = crossing(points)
        if pair is None:
            break
        points.append(measure_point(float(f"{(pair[0].value + pair[1].value) / 2:.4g}")))
    points.sort(key=lambda point: point.value)


def sweep(measure, options, use):
    """Points for gamma 0 and the sweep, against the model's own choice under the same options, which gamma 0 has to be."""
    own = measure.eval(*options)
    points = [Point(gamma, measure.eval(*NASH, "--gamma", gamma, *options), own, use) for gamma in [0.0] + measure.args.gammas]
    if abs(points[0].change) > 1e-7:
        print(f"\nNote: without a price the game is not the model's own choice here: {points[0].perplexity} "
              f"and {own['perplexity']}.")
    return points


# ---- Text ----

GAME_HEAD = ["choices changed", "sweeps, mean", "largest regret"]


def figure(routing, key, style):
    value = routing.get(key)
    return "-" if value is None else format(value, style)


def game_columns(point):
    """What a game changed, and whether it came to rest."""
    return [figure(point.routing, "changed", ".1%"), figure(point.routing, "mean_sweeps", ".2f"),
            figure(point.routing, "max_regret", ".1e")]


def cost_columns(point):
    return [f"{point.perplexity:.4f}", f"{point.change:+.2%}"]


def tell(measure, section, title, head, rows):
    args = measure.args
    files = " ".join(map(kept.as_typed, (args.program, args.model, args.text)))
    kept.table(title, f"bench/routing.py {files} --limit {args.limit} --only {section}", head, rows)


def tell_budget(points, style=".2f"):
    found, first = at_budget(points), points[0].use
    if found:
        use, gamma = found
        print(f"\nAt {BUDGET:.0%} of perplexity, between neighbours in the sweep: gamma {gamma:.3g}, {use:{style}} instead of "
              f"{first:{style}}, {1 - use / first:.0%} fewer.")
    else:
        best = within(points)
        print(f"\nThe sweep stays within {BUDGET:.0%} of perplexity: gamma {best.value:g}, {best.use:{style}} instead of "
              f"{first:{style}}, {1 - best.use / first:.0%} fewer ({best.change:+.2%}).")


def tell_sweep(measure, section, title, points, use):
    tell(measure, section, title, ["gamma", use, "times gamma 0", "perplexity", "change", *GAME_HEAD],
         [[f"{point.value:g}", f"{point.use:.2f}", f"{point.use / points[0].use:.3f}", *cost_columns(point), *game_columns(point)]
          for point in points])
    tell_budget(points)


# ---- Pictures ----

TOP, HEIGHT = 46, 214
WHOLE = TOP + HEIGHT + 46


def trade_panel(left, width, label, curves, most=0.06):
    """Curves {series: points} of the use over the change of perplexity, and the budget."""
    changes = [point.change for points in curves.values() for point in points]
    low, high = min(0.0, *changes), min(max(*changes, 2 * BUDGET), most)
    seen = [point.use for points in curves.values() for point in points if point.change <= high]
    panel = chart.Panel((left, TOP, width, HEIGHT), (100 * (low - 0.03 * high), 103 * high), chart.around(seen, True),
                        "perplexity, % above the model's own", label)
    panel.rule(f"{BUDGET:.0%}", x=100 * BUDGET)
    for series, points in curves.items():
        places = [(100 * point.change, point.use) for point in sorted(points, key=lambda point: point.value)]
        panel.line(places, series)
        panel.marks(places, series)
    return panel


def speed_panel(left, width, ratios):
    highest = max(max(values) for values in ratios.values())
    panel = chart.Panel((left, TOP, width, HEIGHT), (-0.6, len(ratios) - 0.4), chart.around([highest], True), "gamma",
                        "decode speed, times the model's", list(enumerate(ratios)))
    for i, (name, values) in enumerate(ratios.items()):
        series = 0 if name == "model" else 1
        panel.span(i, min(values), max(values), series)
        panel.marks([(i, statistics.median(values))], series)
    return panel


def save(measure, name, width, title, panels):
    chart.save(os.path.join(measure.args.svg, f"routing-{name}.svg"), width, WHOLE, title, panels)


def save_beside(measure, name, title, pictures):
    """Pictures are pairs of a width and of what makes a panel of it and its left edge."""
    panels, left = [], 56
    for width, make in pictures:
        panels.append(make(left, width))
        left += width + 70
    save(measure, name, left - 50, title, panels)


# ---- Fewer experts for a token ----

def adaptive(measure):
    own = measure.eval()

    def with_theta(theta):
        result = measure.eval(*NASH, "--keep-top", 1, "--min-experts", 1, "--theta", theta)
        return Point(theta, result, own, experts_per_token)

    def with_fewer(left_out):
        result = measure.eval("--max-experts", measure.top_k - left_out) if left_out else own
        return Point(left_out, result, own, experts_per_token)

    points = [Point(0.0, own, own, experts_per_token)] + [with_theta(theta) for theta in measure.args.thetas]
    refine(with_theta, points)
    fewer = [with_fewer(left_out) for left_out in range(measure.top_k)]
    rows = [["top-k", f"{measure.top_k - point.value}", f"{point.use:.3f}", *cost_columns(point)] for point in fewer]
    rows += [["adaptive", f"{point.value:g}", f"{point.use:.3f}", *cost_columns(point)] for point in points]
    tell(measure, "adaptive", "Experts a token",
         ["choice", "k or theta", "experts a token and layer", "perplexity", "change"], rows)
    for name, found in (("adaptive count", points), ("plain top-k", fewer)):
        best = within(found)
        print(f"\nLargest saving of {name} within {BUDGET:.0%} of perplexity: {best.use:.2f} experts instead of {measure.top_k}, "
              f"{1 - best.use / measure.top_k:.0%} fewer ({best.change:+.2%}).")
    panel = trade_panel(56, 560, "experts a token, mean over layers", {1: points, 2: fewer}, most=0.12)
    panel.legend({1: "adaptive count (theta)", 2: "plain top-k, smaller k"}, right=180)
    save(measure, "adaptive", 640, "Fewer experts where a token needs fewer", [panel])


# ---- Tokens that share experts ----

def batch_options(args):
    return ("--sequences", args.sequences)


SCORED_AT_ONCE = 256  # tokens of a pass of `dilmodeli eval`


def chunk_options(args):
    return ("--joint", args.joint, "--overlap", args.ctx // 2)


def experts_per_chunk(measure):
    """Experts that a pass over a chunk reads. `eval` counts all passes, those over scored text too, whose experts are known from
    reading nothing else."""
    args = measure.args
    context, scored = args.ctx // 2, args.ctx - args.ctx // 2
    at_once = min(scored, SCORED_AT_ONCE)
    of_scored = experts_per_step(measure.eval(context=at_once))

    def use(result):
        windows = max(1, math.ceil((result["tokens"] - args.ctx) / scored))  # after the first, which has no context
        chunks = windows * math.ceil(context / args.joint)
        others = math.ceil(args.ctx / SCORED_AT_ONCE) + windows * math.ceil(scored / at_once)
        return (experts_per_step(result) * (chunks + others) - of_scored * others) / chunks
    return use


def batch(measure):
    args = measure.args
    points = sweep(measure, batch_options(args), experts_per_step)
    tell_sweep(measure, "batch", f"{args.sequences} sequences decoded together, {measure.experts} experts in a layer", points,
               "different experts of a layer in a step")
    label = f"experts of a layer, {args.sequences} sequences"
    pictures = [(250, lambda left, width: trade_panel(left, width, label, {1: points}))]
    if not args.no_speed:
        ratios = batch_speed(measure, points)
        pictures.append((200, lambda left, width: speed_panel(left, width, ratios)))
    return pictures


def batch_speed(measure, points):
    """Decode with the model's routing, the game without a price, the gammas that cost up to 1 and 3%, and the largest."""
    args = measure.args
    chosen = [within(points), within(points, 0.03), points[-1]]
    gammas = sorted({0.0} | {point.value for point in chosen if point})
    ways = {"model": ("--router", "model", *batch_options(args))}
    ways.update({f"{gamma:g}": (*NASH, "--gamma", gamma, *batch_options(args)) for gamma in gammas})
    found = measure.in_turns(ways)
    changes = {f"{point.value:g}": f"{point.change:+.2%}" for point in points}
    ratios, rows = {}, []
    for name, results in found.items():
        ratios[name] = [mine["decode_tps"] / model["decode_tps"] for mine, model in zip(results, found["model"])]
        rows.append(["the model's own" if name == "model" else f"Nash, gamma {name}", changes.get(name, "-"),
                     f"{statistics.fmean(result['experts_per_step'] for result in results):.1f}",
                     kept.mean_range([result["decode_tps"] for result in results], ".0f"), kept.mean_range(ratios[name])])
    tell(measure, "batch", f"Decode of {args.sequences} sequences, {args.rounds} rounds in turns; mean (range)",
         ["router", "perplexity in the sweep", "experts of a layer in a step", "tokens/s of all",
          "times the model's own of the same round"], rows)
    return ratios


def chunk(measure):
    args = measure.args
    points = sweep(measure, chunk_options(args), experts_per_chunk(measure))
    after = args.ctx - args.ctx // 2
    tell_sweep(measure, "chunk", f"Context read {args.joint} tokens at a time, perplexity of the {after} tokens after", points,
               "different experts of a layer in a step")
    label = f"experts of a layer, {args.joint} of a prompt"
    return [(250, lambda left, width: trade_panel(left, width, label, {3: points}))]


# ---- Memory for a part of the experts ----

def resident_options(measure, share=2):
    return ("--resident", max(measure.top_k, measure.experts // share))


def resident(measure):
    curves, names = {}, {1: "half of the experts", 2: "a quarter"}
    for series, share in ((1, 2), (2, 4)):
        options = resident_options(measure, share)
        points = curves[series] = sweep(measure, options, fetches)
        rows = [["LRU, the model's own choice" if point is points[0] else f"gamma {point.value:g}",
                 f"{hit_rate(point.routing):.2%}", f"{point.use:.3f}", f"{point.use / points[0].use:.3f}",
                 f"{point.routing['bytes_read_per_token'] / 1e6:.2f}", *cost_columns(point),
                 figure(point.routing, "changed", ".1%")] for point in points]
        tell(measure, "resident", f"Memory for {options[1]} of {measure.experts} experts of a layer ({names[series]})",
             ["choice", "hit rate", "experts fetched for a token, of a layer", "times LRU", "MB read for a token", "perplexity",
              "change", "choices changed"], rows)
        tell_budget(points, ".3f")
    panel = trade_panel(56, 560, "experts fetched for a token, of a layer", curves)
    panel.legend({series: f"memory for {name}" for series, name in names.items()}, right=210)
    save(measure, "resident", 640, "Choosing what is near; at the left end of each line, LRU alone", [panel])


# ---- What each part is for ----

def ablation(measure):
    args = measure.args
    step = "different experts of a layer in a step of {} tokens"
    settings = {"batch": (batch_options(args), experts_per_step, step.format(args.sequences)),
                "chunk": (chunk_options(args), experts_per_chunk(measure), step.format(args.joint)),
                "resident": (resident_options(measure, 4), fetches, "experts fetched for a token, of a layer")}
    for name, (options, use, head) in settings.items():
        points = sweep(measure, options, use)
        found = at_budget(points)
        gamma = float(f"{found[1]:.2g}") if found else points[-1].value
        tell(measure, "ablation", f"Parts taken out: {name}, gamma {gamma:g}",
             ["router", head, "perplexity", "change", f"the least within {BUDGET:.0%} of perplexity (its gamma)", *GAME_HEAD],
             ablation_rows(measure, options, use, measure.eval(*options), points[0], gamma))


def ablation_rows(measure, options, use, own, exact, gamma):
    every = ("--flock", measure.experts)
    variants = {"all of it": (), "prices once, no game (`--sweeps 0`)": ("--sweeps", 0),
                "experts are worth their affinity (`--payoff affinity`)": ("--payoff", "affinity"),
                f"no flock, all experts looked at (`--flock {measure.experts}`)": every,
                "no expert always kept (`--keep-top 0`)": ("--keep-top", 0),
                "no game, no flock, none kept": ("--sweeps", 0, *every, "--keep-top", 0)}
    if "--resident" in options:
        variants["none looked at for being in memory (`--flock-resident -1`)"] = ("--flock-resident", -1)
        variants["neither that nor gates, as the game was"] = ("--flock-resident", -1, "--payoff", "affinity")
    rows = []
    for name, taken in variants.items():
        def point(at, more=taken):
            value = float(f"{at:.3g}")
            return Point(value, measure.eval(*NASH, "--gamma", value, *options, *more), own, use)
        here = point(gamma)
        least, at = least_within(point, [exact, point(gamma / 2), here], gamma)
        rows.append([name, f"{here.use:.3f}", *cost_columns(here), f"{least:.3f} ({at:.3g})", *game_columns(here)])
    return rows


def least_within(point, points, gamma):
    """The least use that the budget buys, and its gamma. A variant that costs less at the same gamma may only do less."""
    for factor in (1.5, 2.25, 3.4, 5.1):
        if crossing(points):
            break
        points.append(point(gamma * factor))
    best = within(points)
    return at_budget(points) or (best.use, best.value)


def sleep(measure):
    own = measure.eval()
    points = [Point(share, measure.eval("--sleep", share), own, asleep) for share in [0.0] + measure.args.sleeps]
    rows = [[f"{point.value:g}", f"{point.use:.1%}", figure(point.routing, "changed", ".2%"), *cost_columns(point)]
            for point in points]
    tell(measure, "sleep", "Experts put to sleep", ["asleep below this share of the mean wish", "experts asleep at the end",
                                                    "choices changed", "perplexity", "change"], rows)


def main():
    args = read_arguments()
    NASH.extend(args.game.split())
    measure = Measure(args)
    shared = []
    for name, section in {"adaptive": adaptive, "batch": batch, "chunk": chunk, "resident": resident, "ablation": ablation,
                          "sleep": sleep}.items():
        if name in args.only:
            shared += section(measure) or []
    if "batch" in args.only and "chunk" in args.only:
        save_beside(measure, "batch", "Tokens that share experts: decode and prompts", shared)
    measure.store.tell()


main()
