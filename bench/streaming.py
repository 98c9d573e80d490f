#!/usr/bin/python3
"""Models larger than memory: decode speed, hit rate and bytes read beside peers, each process as a whole under a limit.

Sections (--only):
  peers        a mixture of experts of 1.16 GB (--model, made if it is not there) with 300, 600 and 900 MB for everything
  large        one of more than 5 GB (made if it is not there) with a quarter of its size
  equilibrium  a trained model with half and a quarter of its experts' bytes (--ram): exact routing under each eviction policy,
               and the routing game at several gammas: misses, bytes a token, tokens/s, perplexity
  soak         one process that answers changing prompts under a tight limit: its memory, second by second, must not grow, and
               what it says must be what it says without a limit

Limits are memory control groups, version 1 or 2, so this needs root. The page cache is emptied before each run, programs take
turns (A B C A B C ...), tables have medians of the rounds. All are fed the same ids of a real text, token by token, peers by
bench/llama_decode.c: ik_llama.cpp, where --ik names a folder in which it is built (its library is enough), plain and with what
it offers for experts; llama.cpp, where `make peer` fetched it. Ours runs as the file is, after `dilmodeli repack`, and without a
limit too. The disk is measured in every round, past the page cache, with several reads in flight, while memory is at rest and
while it is read. Results are kept below ~/.cache/dilmodeli/routing/streaming: started again, the script goes on. Tables go to
standard output, pictures to the folder that --svg names.

Usage: bench/streaming.py PROGRAM TEXT [--ik FOLDER] [--only SECTION...]; needs an otherwise idle machine.
"""
import glob
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import arguments
import chart
import kept
import limited

SECTIONS = ("peers", "large", "equilibrium", "soak")
HERE = os.path.dirname(os.path.abspath(__file__))
NASH = ("--router", "nash")
IN_RAM = "dilmodeli, no limit"
MB = 1e6
POLICIES = ("lru", "lfu:64", "lfru:0.25", "slru:0.5", "stale")
# Misses under LRU and with their router, and what that cost of perplexity: arXiv 2412.00099
PUBLISHED = {"Qwen1.5-MoE": (0.35, 0.16, 0.005), "DeepSeek-V2-Lite": (0.28, 0.07, 0.001), "Mixtral": (0.40, 0.21, 0.029)}


def read_arguments():
    cached = os.path.join(kept.CACHE, "{}").format
    parser = arguments.parser(__doc__, SECTIONS)
    parser.add_argument("text", help="a file, or a folder of which the same share of every file is taken")
    parser.add_argument("--model", default=cached("bench/olmoe-4l-text-q4_k_m.gguf"))
    parser.add_argument("--large", default=cached("bench/olmoe-20l-text-q4_k_m.gguf"))
    parser.add_argument("--trained", default=cached("reference/run/model.gguf"))
    parser.add_argument("--tokenizer", default=cached("reference/tokenizer.gguf"), help="vocabulary of a model that is made")
    parser.add_argument("--ik", help="folder of ik_llama.cpp, built in its folder `build`")
    parser.add_argument("--way", action="append", default=[], metavar="NAME=OPTIONS", help="dilmodeli again, with these options")
    parser.add_argument("--limits", type=arguments.numbers, default="300,600,900", help="MB for a whole process")
    parser.add_argument("--tokens", type=int, default=128, help="that are counted in a run, after as many that are not")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--shares", type=arguments.numbers, default="0.5,0.25", help="of the experts' bytes, of --ram")
    parser.add_argument("--policies", nargs="+", default=POLICIES, help="of --evict; others are compared with the first")
    parser.add_argument("--gammas", type=arguments.numbers, default="0.05,0.1,0.2,0.3,0.5,0.8")
    parser.add_argument("--slack", type=float, default=250, help="MB beside --ram and the other weights where speed is measured")
    parser.add_argument("--no-speed", action="store_true", help="equilibrium: hit rates and perplexities alone; needs no root")
    parser.add_argument("--minutes", type=float, default=30, help="of the soak")
    parser.add_argument("--growth", type=float, default=0.02, help="of memory that the soak allows, last third over first")
    parser.add_argument("--svg", help="folder for pictures")
    return parser.parse_args()


# ---- Models, texts, peers ----

def make_model(args, path, tokenizer, *options):
    if not os.path.exists(path):
        print(f"making {path}", file=sys.stderr)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        kept.call([args.program, "new", path, "--shape", "olmoe-4l", "--type", "q4_k_m", "--tokenizer", tokenizer, *options])
    return path


def text_file(args):
    return kept.text(args.text, args.limit)


def ids_file(args, model):
    """Ids of the text in the model's vocabulary, as many as a run is fed."""
    ids = kept.object_of([args.program, "tokenize", model, "--file", text_file(args), "--json"])["ids"][:2 * args.tokens]
    if len(ids) < 2 * args.tokens:
        limited.refuse(f"{args.text}: has {len(ids)} tokens; expected {2 * args.tokens}, twice --tokens: give a longer text")
    path = os.path.join(kept.FOLDER, f"fed-{kept.digest(ids)}.ids")
    with open(path, "w", encoding="ascii") as file:
        file.write(" ".join(map(str, ids)))
    return path


def compile_loop(name, folder, *options):
    """Our measuring loop over a peer's library, whose headers lie in folder."""
    program = os.path.join(kept.FOLDER, name)
    kept.call(["cc", "-O2", os.path.join(HERE, "llama_decode.c"), "-o", program,
               *(f"-I{folder}/{part}" for part in ("include", "ggml/include")), *options])
    return program


def ik_program(folder):
    libraries = [os.path.join(folder, "build", part) for part in ("src", "ggml/src")]
    if not os.path.exists(os.path.join(libraries[0], "libllama.so")):
        limited.refuse(f"{libraries[0]}: has no libllama.so; build ik_llama.cpp in {folder}/build first (ninja llama)")
    return compile_loop("ik_decode", folder, "-DDM_IK", *(f"-L{library}" for library in libraries), "-lllama", "-lggml",
                        "-Wl,-rpath," + ":".join(libraries))


def llama_program(modules):
    """Over the library that node-llama-cpp has prebuilt; its headers are in the sources that it brings."""
    libraries = os.path.join(modules, "@node-llama-cpp/linux-x64/bins/linux-x64")
    bundle = os.path.join(modules, "node-llama-cpp/llama/gitRelease.bundle")
    sources = os.path.join(kept.FOLDER, f"llama.cpp-{kept.digest(kept.file_facts(bundle))}")
    if not os.path.isdir(sources):
        kept.call(["git", "clone", "--quiet", bundle, sources])
    found = [file for name in ("libllama.*", "libggml.*", "libggml-base.*") for file in glob.glob(os.path.join(libraries, name))]
    return compile_loop("llama_decode", sources, f'-DDM_BACKENDS="{libraries}"', *found, f"-Wl,-rpath,{libraries}")


def peers(args, model, ids):
    """{name: command} of the programs that are there."""
    fed = [model, ids, str(args.tokens), str(args.threads)]
    modules = os.path.realpath(os.path.join(HERE, "..", "tests", "peer", "node_modules"))
    found = {}
    if args.ik:
        program = ik_program(args.ik)
        found["ik_llama.cpp"] = [program, *fed]
        found["ik_llama.cpp, prefetch"] = [program, *fed, "prefetch"]
        found["ik_llama.cpp, prefetch, defer"] = [program, *fed, "prefetch", "defer"]
    if os.path.isdir(modules):
        found["llama.cpp"] = [llama_program(modules), *fed]
    else:
        print("without llama.cpp: `make peer` fetches it", file=sys.stderr)
    return found


def ours(args, model, ids, *options):
    return [args.program, "bench", model, "--ids", ids, "--prompt", "0", "--depth", "0", "--decode", str(args.tokens), "--rounds",
            "1", "--no-limits", "--threads", str(args.threads), *map(str, options), "--json"]


def repacked(args, model):
    """The same file under another name, beside which its panels are kept."""
    path = os.path.join(kept.FOLDER, "repacked", os.path.basename(model))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not os.path.exists(path) or not os.path.samefile(path, model):
        if os.path.lexists(path):
            os.remove(path)
        os.symlink(os.path.realpath(model), path)
    if not os.path.exists(path + ".panels"):
        kept.call([args.program, "repack", path])
    return path


def ways(args, model, ids, limit):
    """{name: (command, limit)}"""
    def limited_to(path, *options):
        return ours(args, path, ids, "--memory", round(limit), *options), limit
    found = {"dilmodeli": limited_to(model), "dilmodeli, repacked": limited_to(repacked(args, model)),
             "dilmodeli, prefetch 1": limited_to(model, "--prefetch", 1)}
    for way in args.way:
        name, options = way.split("=", 1)
        found[f"dilmodeli, {name}"] = limited_to(model, *options.split())
    return {**found, IN_RAM: (ours(args, model, ids), 4 * os.path.getsize(model)),
            **{name: (command, limit) for name, command in peers(args, model, ids).items()}}


# ---- Measuring ----

def measured(command, limit, tokens):
    """{"tps", "hit_rate", "own_bytes", "system_bytes" a token, "peak", "own" in bytes}, or what kept it from ending well."""
    result = limited.run(command, limit)
    found = {key: result[key] for key in ("seconds", "peak", "own", "killed", "failed") if key in result}
    if "decode_tps" not in result:
        return found
    routing = result.get("routing", {})
    found.update(tps=result["decode_tps"], system_bytes=result["reads"].in_last(tokens / result["decode_tps"]) / tokens,
                 hit_rate=routing.get("hit_rate", {}).get("ram"), own_bytes=routing.get("bytes_read_per_token"))
    return found


def disk_speeds(args, model):
    """Bytes a second past the page cache: while memory is at rest, of the best size and number of reads in flight; and while all
    processors read memory, as computing a token does."""
    build = os.path.dirname(os.path.abspath(args.program))
    subprocess.run(["ninja", "-C", build, "dm-bench-disk"], check=True, stdout=subprocess.DEVNULL)
    found = kept.object_of([f"{build}/bench/dm-bench-disk", model, "0.05", "--json"])
    return {"disk": 1e9 * found["best_gb_s"], "busy": 1e9 * found["while_computing_gb_s"]}


def in_turns(store, name, facts, args, model, commands):
    """[{"disk", "busy": bytes a second, "runs": {name: what it gave}}] of rounds, each kept whole; the disk while memory is at rest
    and while it is read; commands: {name: (command, limit)}."""
    def run(command, limit):
        found = measured(command, limit, args.tokens)
        if "failed" in found and command[0] == args.program:  # a peer may refuse a model, or such a limit
            limited.refuse(f"`{' '.join(command)}`: {found['failed']}")
        return found

    def measure():
        return {**disk_speeds(args, model), "runs": {way: run(*command) for way, command in commands.items()}}
    return [store.get(name, [facts, commands, turn], measure) for turn in range(args.rounds)]


def least_seconds(found, missed):
    """Of a token that misses so many bytes, in a round: all of its computing, as long as that takes with all of the model in
    memory, while the disk reads as fast as it does beside that, and then the rest of the bytes alone."""
    computing = 1 / found["runs"][IN_RAM]["tps"]
    return computing + max(0, missed - computing * found["busy"]) / found["disk"]


class Way:
    """A program's runs over the rounds."""

    def __init__(self, name, rounds):
        self.name = name
        self.runs = [found["runs"][name] for found in rounds]
        self.fine = [(found, run) for found, run in zip(rounds, self.runs) if "tps" in run]

    def median(self, figure):
        """Of what figure(run) gives; None where it is never there."""
        values = [value for value in (figure(run) for run in self.runs) if value is not None]
        return statistics.median(values) if values else None

    def tps(self):
        return self.median(lambda run: run.get("tps"))

    def speeds(self):
        return [run["tps"] for _, run in self.fine]

    def limits(self):
        """Tokens a second that the disk alone would allow, and that it and computing allow (of ours, where a round has a run without
        a limit), medians; None where nothing is read, or not known."""
        alone = [found["disk"] / run["system_bytes"] for found, run in self.fine if run["system_bytes"] > 0]
        both = [1 / least_seconds(found, run["system_bytes"]) for found, run in self.fine
                if self.name.startswith("dilmodeli") and run["system_bytes"] > 0 and "tps" in found["runs"].get(IN_RAM, {})]
        return tuple(statistics.median(values) if values else None for values in (alone, both))

    def trouble(self):
        return next((run["failed"] for run in self.runs if "failed" in run), "killed: not enough memory")


# ---- Text ----

def shown(value, style, scale=1.0):
    return "-" if value is None else format(value * scale, style)


def speed_cell(way):
    speeds = way.speeds()
    if not speeds:
        return way.trouble()
    lost = len(way.runs) - len(speeds)
    return f"{way.tps():.2f} ({min(speeds):.2f} to {max(speeds):.2f})" + (f", {lost} runs failed" if lost else "")


READ_HEAD = ["tokens/s (range)", "hit rate", "MB read a token, own count", "as the system counts", "peak MB (no file's)",
             "tokens/s the disk allows", "share reached", "disk and computing allow", "share reached"]


def read_columns(way):
    limits = [(limit, limit and way.tps() and way.tps() / limit) for limit in way.limits()]

    def cell(key, style, scale=1.0):
        return shown(way.median(lambda run: run.get(key)), style, scale)
    return [speed_cell(way), cell("hit_rate", ".1%"), cell("own_bytes", ".1f", 1 / MB), cell("system_bytes", ".1f", 1 / MB),
            f"{cell('peak', '.0f', 1 / MB)} ({cell('own', '.0f', 1 / MB)})",
            *(text for limit, share in limits for text in (shown(limit, ".1f"), shown(share, ".0%")))]


def tell(section, title, head, rows):
    """With the command that gives this section alone."""
    command = ["bench/streaming.py", *map(kept.as_typed, without_only(sys.argv[1:])), "--only", section]
    kept.table(title, " ".join(word if word.startswith("~/") else shlex.quote(word) for word in command), head, rows)


def without_only(words):
    if "--only" not in words:
        return words
    at = words.index("--only")
    rest = next((i for i in range(at + 1, len(words)) if words[i] not in SECTIONS), len(words))
    return words[:at] + words[rest:]


def tell_disk(rounds):
    alone, busy = ([found[when] / 1e9 for found in rounds] for when in ("disk", "busy"))
    print(f"\nThe disk, past the page cache: {kept.mean_range(alone, '.2f')} GB/s, {kept.mean_range(busy, '.2f')} GB/s while memory is "
          f"read; medians of {len(rounds)} rounds.")


def tell_best(limit, found):
    """How the fastest of ours stands to the fastest of the others."""
    own = [way for way in found if way.name.startswith("dilmodeli") and way.name != IN_RAM and way.speeds()]
    others = [way for way in found if not way.name.startswith("dilmodeli") and way.speeds()]
    if own and others:
        first, best = max(own, key=Way.tps), max(others, key=Way.tps)
        print(f"\nWith {limit / MB:.0f} MB {first.name} is {first.tps() / best.tps():.2f} times as fast as the best peer, "
              f"{best.name}.")


# ---- Models larger than memory, beside peers ----

def facts_of(args, model, ids):
    facts = [kept.file_facts(model), os.path.basename(ids), args.tokens, args.threads]
    return facts + ([kept.file_facts(os.path.join(args.ik, "build/src/libllama.so"))] if args.ik else [])


def beside_peers(args, store, section, model, limits):
    ids = ids_file(args, model)
    rows, by_limit, rounds = [], {}, []
    for limit in limits:
        commands = ways(args, model, ids, limit)
        turns = in_turns(store, section, facts_of(args, model, ids), args, model, commands)
        by_limit[limit] = [Way(name, turns) for name in commands]
        rounds += turns
        rows += [[f"{limit / MB:.0f}", way.name, *read_columns(way)] for way in by_limit[limit]]
    size = os.path.getsize(model)
    tell(section, f"{os.path.basename(model)}, {size / MB:.0f} MB, {args.tokens} tokens one by one",
         ["MB", "program", *READ_HEAD], rows)
    tell_disk(rounds)
    for limit, found in by_limit.items():
        tell_best(limit, found)
    if args.svg:
        draw_peers(args, section, by_limit)


def section_peers(args, store):
    model = make_model(args, args.model, args.tokenizer)
    beside_peers(args, store, "peers", model, [limit * MB for limit in args.limits])


def section_large(args, store):
    vocabulary = args.model if os.path.exists(args.model) else args.tokenizer
    model = make_model(args, args.large, vocabulary, "--layers", "20")
    beside_peers(args, store, "large", model, [os.path.getsize(model) / 4])


# ---- The routing game under a budget ----

def expert_bytes(args):
    tensors = kept.object_of([args.program, "inspect", args.trained, "--json"])["tensors"]
    found = sum(tensor["bytes"] for tensor in tensors if "_exps." in tensor["name"])
    if found == 0:
        limited.refuse(f"{args.trained}: expected a mixture of experts; --trained names one")
    return found


class Setting:
    """One choice of experts under a budget: hits, bytes and perplexity of the text, and speed where it is measured."""

    def __init__(self, name, gamma, result):
        self.name, self.gamma, self.perplexity = name, gamma, result["perplexity"]
        self.misses = 1 - result["routing"]["hit_rate"]["ram"]
        self.bytes = result["routing"]["bytes_read_per_token"]
        self.way = None

    def compare(self, exact):
        self.change = self.perplexity / exact.perplexity - 1
        self.ratio = self.misses / exact.misses if exact.misses > 0 else None
        return self


def settings_of(args):
    """[(name, gamma, options)], LRU with exact routing first."""
    exact = [(f"exact, {policy}", None, ("--evict", policy)) for policy in args.policies]
    return exact + [("game", gamma, (*NASH, "--gamma", f"{gamma:g}")) for gamma in args.gammas]


def scored(args, store, text, budget, options):
    command = ["--limit", str(args.limit), "--ctx", str(args.ctx), "--sequences", "1", "--threads", str(args.threads),
               "--ram", str(budget), *options]
    with open(text, "rb") as file:
        facts = [kept.file_facts(args.trained), kept.digest(file.read(args.limit or -1)), command]
    return store.get("eval", facts, lambda: kept.object_of(
        [args.program, "eval", args.trained, "--data", text, *command, "--json"]))


def add_speeds(args, store, budget, others, settings):
    """Each under a limit that leaves the files no room beside the budget."""
    ids = ids_file(args, args.trained)
    limit = budget + others + args.slack * MB
    commands = {" ".join(options): (ours(args, args.trained, ids, "--ram", budget, *options), limit)
                for _, _, options in settings_of(args)}
    rounds = in_turns(store, "budget", facts_of(args, args.trained, ids), args, args.trained, commands)
    for setting, name in zip(settings, commands):
        setting.way = Way(name, rounds)


def under_budget(args, store, share):
    experts, text = expert_bytes(args), text_file(args)
    budget = round(share * experts)
    settings = [Setting(name, gamma, scored(args, store, text, budget, options)) for name, gamma, options in settings_of(args)]
    for setting in settings:
        setting.compare(settings[0])
    if not args.no_speed:
        add_speeds(args, store, budget, os.path.getsize(args.trained) - experts, settings)
    rows = [[setting.name, shown(setting.gamma, "g"), f"{setting.misses:.1%}", shown(setting.ratio, ".3f"),
             f"{setting.bytes / MB:.2f}", speed_cell(setting.way) if setting.way else "-", f"{setting.perplexity:.4f}",
             f"{setting.change:+.2%}"] for setting in settings]
    tell("equilibrium", f"{os.path.basename(args.trained)}, {budget / MB:.0f} MB for experts, {share:.0%} of them",
         ["choice", "gamma", "misses", "times the first", "MB read a token", "tokens/s (range)", "perplexity", "change"], rows)
    return settings


def section_equilibrium(args, store):
    found = {share: under_budget(args, store, share) for share in args.shares}
    kept.table("Published", "arXiv 2412.00099", ["model", "misses, LRU", "misses, theirs", "times LRU", "perplexity"],
               [[name, f"{lru:.0%}", f"{theirs:.0%}", f"{theirs / lru:.3f}", f"{cost:+.1%}"]
                for name, (lru, theirs, cost) in PUBLISHED.items()])
    if args.svg:
        draw_equilibrium(args, found)


# ---- Soak ----

class Memory:
    """Resident bytes of a process, second by second."""

    def __init__(self):
        self.resident, self.own = [], []

    def look(self, process):
        found = limited.pairs(f"/proc/{process}/status")
        if "VmRSS" in found:
            self.resident.append(1024 * found["VmRSS"])
            self.own.append(1024 * found["RssAnon"])


def thirds(values):
    """Means of the first third and of the last, once slots had some time to be filled."""
    values = values[len(values) // 10:]
    third = len(values) // 3
    return statistics.mean(values[:third]), statistics.mean(values[-third:])


def growth(values):
    first, last = thirds(values)
    return last / first - 1


class Prompts:
    """Lines of words from random places of a text; /reset after every few, so that chats grow and end."""

    def __init__(self, path, seed=1):
        with open(path, encoding="utf-8", errors="replace") as file:
            self.words = file.read(1 << 20).split()
        self.draw = random.Random(seed)

    def next(self):
        length = self.draw.randrange(5, 60)
        at = self.draw.randrange(max(1, len(self.words) - length))
        return " ".join(self.words[at:at + length]).lstrip("/")[:400]  # a long word is no reason to overflow the context


CHAT = 4  # messages


def talk(process, prompts, end, trouble, typed):
    """Chats until the time is over, and adds what was typed. A program that says "(forgotten)" has answered what came before. How
    many answers."""
    answers = 0
    while time.monotonic() < end and not trouble:
        try:
            typed.append("".join(prompts.next() + "\n" for _ in range(CHAT)) + "/reset\n")
            process.stdin.write(typed[-1])
            process.stdin.flush()
        except BrokenPipeError:
            break
        for line in process.stderr:
            if line.startswith("(forgotten)"):
                answers += CHAT
                break
            if not line.startswith(("The model has no chat template", "(the context is full")):
                trouble.append(line.strip())
        else:
            break
    process.stdin.close()
    return answers


def same_chats(command, typed):
    print("+ " + " ".join(command), file=sys.stderr)
    return subprocess.run(command, input="".join(typed).encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          check=True).stdout


def soak(args, model, limit):
    limited.forget_files()
    unlimited = [args.program, "run", model, "--chat", "--chat-template", "plain", "-c", "1024", "-n", "48",
                 "--threads", str(args.threads)]
    command = [*unlimited, "--memory", str(round(limit))]
    print(f"+ [{limit / MB:.0f} MB] " + " ".join(command), file=sys.stderr)
    memory, trouble, answers, typed = Memory(), [], [], []
    with limited.make_group(limit) as group, tempfile.TemporaryFile() as said:
        process = limited.start(command, group, stdin=subprocess.PIPE, stdout=said, stderr=subprocess.PIPE,
                                text=True)
        end = time.monotonic() + 60 * args.minutes
        chat = threading.Thread(target=lambda: answers.append(talk(process, Prompts(text_file(args)), end, trouble, typed)))
        chat.start()
        try:
            while chat.is_alive():
                memory.look(process.pid)
                group.look()
                chat.join(1)
            trouble += [line.strip() for line in process.stderr]
            status = process.wait()
        finally:
            process.kill()
            process.wait()
        killed, peak, text = group.killed(), group.peak(), limited.contents(said)
    if killed or status != 0:
        trouble.append("killed: not enough memory" if killed else f"exit status {status}")
    if trouble or not answers[0] or len(memory.resident) < 6:
        limited.refuse(f"soak: expected answers and no error; after {len(memory.resident)} seconds and {answers[0]} answers: "
                       + ("; ".join(trouble) or "the end"))
    if text != same_chats(unlimited, typed):
        limited.refuse(f"soak: expected the text of `{' '.join(unlimited)}`, which was told the same")
    return {"resident": memory.resident, "own": memory.own, "answers": answers[0], "peak": peak}


def section_soak(args, store):
    model = make_model(args, args.model, args.tokenizer)
    limit = args.limits[0] * MB
    facts = [kept.file_facts(model), limit, args.minutes, args.threads]
    found = store.get("soak", facts, lambda: soak(args, model, limit))
    resident, own = found["resident"], found["own"]
    title = (f"{os.path.basename(model)} with {limit / MB:.0f} MB, chats of {CHAT} messages: no error, and the text of a run "
             "without a limit")
    tell("soak", title,
         ["seconds", "answers", "resident MB, first third", "last third", "growth", "of what is no file's", "peak MB"],
         [[f"{len(resident)}", f"{found['answers']}", *(f"{mean / MB:.1f}" for mean in thirds(resident)),
           f"{growth(resident):+.2%}", f"{growth(own):+.2%}", f"{found['peak'] / MB:.0f}"]])
    if growth(resident) > args.growth:
        limited.refuse(f"soak: expected resident memory to grow by {args.growth:.0%} at most")


# ---- Pictures ----

LEFT, TOP, WIDTH, HEIGHT = 56, 46, 560, 240


def save(args, name, title, panel):
    chart.save(os.path.join(args.svg, f"streaming-{name}.svg"), LEFT + WIDTH + 24, TOP + HEIGHT + 46, title, [panel])


def draw_peers(args, section, by_limit):
    """Tokens a second of each program at each limit, beside one another."""
    names = list(dict.fromkeys(way.name for found in by_limit.values() for way in found))[:len(chart.COLOURS)]
    highest = max((speed for found in by_limit.values() for way in found for speed in way.speeds()), default=1)
    panel = chart.Panel((LEFT, TOP, WIDTH, HEIGHT), (-0.5, len(by_limit) - 0.5), chart.around([highest], True),
                        "limit of the whole process, MB", "tokens/s",
                        [(i, f"{limit / MB:.0f}") for i, limit in enumerate(by_limit)])
    for i, found in enumerate(by_limit.values()):
        for way in found:
            if way.name in names and way.speeds():
                series = names.index(way.name)
                x = i + 0.1 * (series - (len(names) - 1) / 2)
                panel.span(x, min(way.speeds()), max(way.speeds()), series)
                panel.marks([(x, way.tps())], series)
    panel.legend(dict(enumerate(names)), right=WIDTH - 16)
    save(args, section, "Decode from a disk", panel)


def draw_equilibrium(args, found):
    """Misses over those of LRU with exact routing, against what that costs of perplexity; the published ones beside."""
    curves = {share: [settings[0]] + [one for one in settings if one.gamma is not None] for share, settings in found.items()}
    published = [(100 * cost, theirs / lru) for lru, theirs, cost in PUBLISHED.values()]
    highest = max([cost for cost, _ in published] + [min(100 * one.change, 6) for curve in curves.values() for one in curve])
    panel = chart.Panel((LEFT, TOP, WIDTH, HEIGHT), (-0.05 * highest, 1.1 * highest), (0, 1.08),
                        "perplexity, % above exact routing's", "misses, times those of the first policy with exact routing")
    names = {}
    for series, (share, curve) in enumerate(curves.items(), 1):
        points = [(100 * one.change, one.ratio) for one in curve if one.ratio is not None]
        panel.line(points, series)
        panel.marks(points, series)
        names[series] = f"the game, room for {share:.0%} of the experts"
    panel.marks(published, 0, filled=False)
    for name, point in zip(PUBLISHED, published):
        panel.note(*point, name)
    panel.legend({**names, 0: "published (arXiv 2412.00099)"}, right=290)
    save(args, "equilibrium", "Fetching less by choosing otherwise", panel)


def main():
    args = read_arguments()
    if os.geteuid() != 0 and not (args.no_speed and set(args.only) == {"equilibrium"}):
        limited.refuse("limits of memory and an empty page cache need root; `--only equilibrium --no-speed` does not")
    store = kept.Store("streaming", args.program, args.again)
    for name, section in {"peers": section_peers, "large": section_large, "equilibrium": section_equilibrium,
                          "soak": section_soak}.items():
        if name in args.only:
            section(args, store)
    store.tell()


main()
