#!/usr/bin/python3
"""How fast `dilmodeli serve` answers, over real connections.

Sections (--only):
  same     whether each of many clients at once gets, character by character, the answer that it gets alone
  clients  tokens a second of 1 client and of many at once, with as many slots; beside another server where --peer names one, in turns
  first    time to the first byte of an answer while 8 slots are busy, beside an idle server
  health   GET /health a second, idle and while all slots are busy
  watched  tokens a second of many clients without and with somebody who watches /events, in turns; what posting takes of a core
  nash     many clients under --router model and --router nash in turns: experts of a layer that a step of decoding reads, tokens a
           second; and the perplexity of --text that both have when as many sequences are read side by side

Prompts are pieces of --text, each client's another one. Figures are medians over --rounds, with their range. MODEL is a file or one of
the shapes of `dilmodeli new`, which is made once below ~/.cache/dilmodeli/bench, in Q4_K_M: random weights, whose perplexity says
nothing. --peer is llama.cpp's llama-server or a program with its options. Usage:

  bench/serve.py PROGRAM MODEL|SHAPE [--text FILE] [--clients 32] [--tokens 64] [--rounds 5] [--gamma 0.2] [--only SECTION...]
                 [--peer PROGRAM] [--threads N] [--json FILE]; the machine should do nothing else.
"""
import argparse
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

SECTIONS = ("same", "clients", "first", "health", "watched", "nash")
HERE = os.path.dirname(os.path.abspath(__file__))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("model", help="a file, or a shape that is made")
    parser.add_argument("--text", default=os.path.join(HERE, "..", "docs", "commands.md"))
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--prompt-bytes", type=int, default=400, help="of --text that each client sends")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gamma", default="0.2")
    parser.add_argument("--eval-bytes", type=int, default=200000, help="of --text that perplexity is of")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--peer", metavar="PROGRAM", help="another server to compare with, called as llama-server is")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", help="write the figures here too")
    return parser.parse_args()


def model_of(options):
    if os.path.exists(options.model):
        return options.model
    folder = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "dilmodeli", "bench")
    path = os.path.join(folder, f"{options.model}-q4_k_m.gguf")
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        made = f"{path}.{os.getpid()}"
        if subprocess.run([options.program, "new", made, "--shape", options.model, "--type", "q4_k_m"], stdout=subprocess.DEVNULL,
                          check=False).returncode != 0:
            sys.exit(f"{options.model} is neither a file nor a shape")
        os.rename(made, path)
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server in a process of its own, ended at the end of the block."""

    def __init__(self, command):
        self.port = free_port()
        self.process = subprocess.Popen([*command, "--port", str(self.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        for _ in range(1200):
            try:
                if self.get("/health")[0] == 200:
                    return self
            except OSError:
                pass
            if self.process.poll() is not None:
                sys.exit(f"{self.process.args[0]} does not start")
            time.sleep(0.1)
        sys.exit("the server does not answer")

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, body

    def metric(self, name):
        return float(re.search(rf"^dilmodeli_{name} (\S+)$", self.get("/metrics")[1], re.MULTILINE).group(1))

    def complete(self, prompt, tokens, seed):
        """Streams an answer; seconds to its first byte and to its end, its tokens and its text."""
        start = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        body = {"prompt": prompt, "max_tokens": tokens, "seed": seed, "stream": True, "ignore_eos": True, "temperature": 0.8,
                "stream_options": {"include_usage": True}}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            sys.exit(f"status {answer.status}: {answer.read().decode()}")
        first, made, text = None, 0, ""
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            part = json.loads(line[6:])
            text += "".join(choice.get("text") or "" for choice in part["choices"])
            if first is None and text:
                first = time.perf_counter() - start
            made = (part.get("usage") or {}).get("completion_tokens", made)
        connection.close()
        return first or time.perf_counter() - start, time.perf_counter() - start, made, text


def prompts_of(options, text, n, turn):
    """n pieces, others at every turn so that no slot knows them."""
    step = max(1, (len(text) - options.prompt_bytes) // (n + 1))
    return [f"{turn}: " + text[i * step:i * step + options.prompt_bytes] for i in range(n)]


def at_once(server, prompts, tokens):
    """All prompts at the same time: seconds, tokens, and each one's text."""
    results = [None] * len(prompts)

    def ask(i):
        results[i] = server.complete(prompts[i], tokens, i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    if None in results:
        sys.exit("a client got no answer")
    return seconds, sum(result[2] for result in results), [result[3] for result in results]


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def show(name, figure, unit):
    print(f"{name:<58} {figure['median']:10.4g} {unit:<9} ({figure['least']:.4g} to {figure['most']:.4g})", flush=True)


def serve(options, slots, *more):
    return Server([options.program, "serve", options.model, "--slots", str(slots), "--ctx", "1024", "--threads", str(options.threads),
                   *more])


def serve_peer(options, slots):
    return Server([options.peer, "-m", options.model, "-np", str(slots), "-c", str(1024 * slots), "-t", str(options.threads)])


def measure_same(options, text):
    prompts = prompts_of(options, text, options.clients, "same")
    with serve(options, options.clients) as server:
        alone = [server.complete(prompt, options.tokens, i)[3] for i, prompt in enumerate(prompts)]
        together = [at_once(server, prompts, options.tokens)[2] for _ in range(options.rounds)]
    wrong = sum(answer != wanted for answers in together for answer, wanted in zip(answers, alone))
    print(f"{wrong} of {options.rounds * len(prompts)} answers to {len(prompts)} clients at once are others than alone", flush=True)
    if wrong > 0:
        sys.exit("answers depend on their company")
    return {"answers": options.rounds * len(prompts), "others": wrong}


def measure_clients(options, text):
    counts = (1, options.clients)
    with contextlib.ExitStack() as stack:
        servers = {"serve": stack.enter_context(serve(options, options.clients))}
        if options.peer:
            servers[os.path.basename(options.peer)] = stack.enter_context(serve_peer(options, options.clients))
        speeds = {name: {n: [] for n in counts} for name in servers}
        for turn in range(options.rounds + 1):
            for name, server in servers.items():
                for n in counts:
                    seconds, made, _ = at_once(server, prompts_of(options, text, n, f"{turn} {n}"), options.tokens)
                    speeds[name][n].append(made / seconds)
    figures = {}
    for name, of in speeds.items():
        for n in counts:
            figures.setdefault(name, {})[n] = spread(of[n][1:])
            show(f"{name}: {n} client{'s at once' if n > 1 else ''}", figures[name][n], "tokens/s")
        print(f"  {figures[name][options.clients]['median'] / figures[name][1]['median']:.2f} times")
    return {"tokens_per_s": figures}


def measure_first(options, text):
    figures, seen = {}, {}
    with serve(options, 9) as server:
        server.complete("The first answer waits for weights", 4, 1)
        for busy in (0, 8):
            ends = threading.Event()

            def keep_busy(i):
                turn = 0
                while not ends.is_set():
                    server.complete(prompts_of(options, text, 9, f"busy {i} {turn}")[i], 200, i)
                    turn += 1

            threads = [threading.Thread(target=keep_busy, args=(i,)) for i in range(busy)]
            for thread in threads:
                thread.start()
            time.sleep(1)
            times, seen[busy] = [], []
            for prompt in prompts_of(options, text, 4 * options.rounds, f"first {busy}"):
                seen[busy].append(min(8, json.loads(server.get("/health")[1])["busy"]))
                times.append(1e3 * server.complete(prompt, 4, 1)[0])
            ends.set()
            for thread in threads:
                thread.join()
            figures[busy] = spread(times)
            show(f"time to the first byte, {busy} other slots busy", figures[busy], "ms")
        print(f"  of 8 slots {statistics.mean(seen[8]):.1f} were busy when it was asked")
    return {"ms": figures, "busy": statistics.mean(seen[8])}


def health_rate(server, seconds):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    done, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        connection.request("GET", "/health")
        connection.getresponse().read()
        done += 1
    connection.close()
    return done / seconds


def measure_health(options, text):
    figures = {}
    with serve(options, 8) as server:
        for busy in (0, 8):
            threads = [threading.Thread(target=server.complete, args=(prompt, 900, 1)) for prompt in prompts_of(options, text, busy, "health")]
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            figures[busy] = spread([health_rate(server, 0.5) for _ in range(options.rounds)])
            still = server.metric("slots_busy")
            for thread in threads:
                thread.join()
            show(f"GET /health over one connection, {busy} slots busy" + (" (fewer in the end)" if still < busy else ""),
                 figures[busy], "requests/s")
    return {"requests_per_s": figures}


class Watcher:
    """Reads /events, as the page does, in a thread of its own until the end of the block."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        self.posts = self.bytes = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.read)

    def read(self):
        self.connection.request("GET", "/events")
        for line in self.connection.getresponse():
            self.posts += line.startswith(b"data: ")
            self.bytes += len(line)
            if self.ended.is_set():
                break
        self.connection.close()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_watched(options, text):
    """An idle server posts as often as a busy one, so its processor time is what posting costs."""
    idle_seconds = 30
    speeds, posts = {False: [], True: []}, 0
    with serve(options, options.clients) as server:
        for turn in range(2 * options.rounds + 2):
            watched = turn % 4 in (1, 2)  # ABBA
            with Watcher(server) if watched else contextlib.nullcontext() as watcher:
                seconds, made, _ = at_once(server, prompts_of(options, text, options.clients, turn), options.tokens)
            if turn > 1:
                speeds[watched].append(made / seconds)
                posts += watcher.posts if watcher else 0
        taken = {}
        for watched in (False, True):
            with Watcher(server) if watched else contextlib.nullcontext() as watcher:
                before = processor_seconds(server.process.pid)
                time.sleep(idle_seconds)
                taken[watched] = (processor_seconds(server.process.pid) - before) / idle_seconds
    figures = {name: spread(of) for name, of in speeds.items()}
    show(f"{options.clients} clients, nobody watches", figures[False], "tokens/s")
    show(f"{options.clients} clients, somebody watches", figures[True], "tokens/s")
    print(f"  {figures[True]['median'] / figures[False]['median']:.3f} times, {posts} posts; an idle server takes {100 * taken[False]:.2f}% of a "
          f"core, {100 * taken[True]:.2f}% with {watcher.posts / idle_seconds:.1f} posts of {watcher.bytes / max(1, watcher.posts):.0f} bytes a second")
    return {"tokens_per_s": figures, "of_a_core": taken, "posts_per_s": watcher.posts / idle_seconds}


def perplexity(options, flags):
    """Of --text, read by as many sequences side by side as there are clients: they route together as answers do."""
    result = subprocess.run([options.program, "eval", options.model, "--data", options.text, "--limit", str(options.eval_bytes),
                             "--sequences", str(options.clients), "--threads", str(options.threads), "--json", *flags],
                            check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(result.stdout)["perplexity"]


def measure_nash(options, text):
    flags = {"model": (), "nash": ("--router", "nash", "--gamma", options.gamma)}
    speeds, experts, scores = {name: [] for name in flags}, {}, {}
    with serve(options, options.clients) as model, serve(options, options.clients, *flags["nash"]) as nash:
        servers = {"model": model, "nash": nash}
        for turn in range(options.rounds + 1):
            for name, server in servers.items():
                seconds, made, _ = at_once(server, prompts_of(options, text, options.clients, turn), options.tokens)
                speeds[name].append(made / seconds)
        for name, server in servers.items():
            speeds[name] = spread(speeds[name][1:])
            experts[name] = server.metric("decode_experts_per_step")
            rows = server.metric("decode_sequences_per_step")
            show(f"--router {name}: {options.clients} clients", speeds[name], "tokens/s")
            print(f"  {experts[name]:.2f} experts of a layer in a step of {rows:.1f} sequences", flush=True)
    for name, given in flags.items():
        scores[name] = perplexity(options, given)
        print(f"  perplexity {scores[name]:.4f} under --router {name}, {options.clients} sequences side by side", flush=True)
    print(f"  experts {experts['nash'] / experts['model']:.3f} of the model's own, speed "
          f"{speeds['nash']['median'] / speeds['model']['median']:.3f} times, perplexity {scores['nash'] / scores['model']:.4f} times")
    return {"tokens_per_s": speeds, "experts_per_step": experts, "perplexity": scores}


def main():
    options = arguments()
    options.model = model_of(options)
    with open(options.text, encoding="utf-8", errors="replace") as file:
        text = file.read(1 << 20)
    measures = {"same": measure_same, "clients": measure_clients, "first": measure_first, "health": measure_health,
                "watched": measure_watched, "nash": measure_nash}
    figures = {name: measures[name](options, text) for name in SECTIONS if name in options.only}
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
