#!/usr/bin/python3
"""How fast `dilmodeli serve` answers, over real connections.

Sections (--only):
  clients  tokens a second of 1 client and of many at once, with as many slots, and what each of them gets
  first    time to the first byte of an answer while 8 slots are busy, beside an idle server
  health   GET /health a second, idle and while all slots are busy
  nash     many clients under --router model and --router nash in turns: experts of a layer that a step of decoding reads, tokens a second
  peer     the first section of llama-server, where --llama-server names one

Prompts are pieces of --text, each client's another one. Figures are medians over --rounds, with their range. Usage:

  bench/serve.py PROGRAM MODEL [--text FILE] [--clients 32] [--tokens 64] [--rounds 5] [--gamma 0.2] [--only SECTION...]
                 [--llama-server PATH] [--json FILE]; the machine should do nothing else.
"""
import argparse
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

SECTIONS = ("clients", "first", "health", "nash", "peer")
HERE = os.path.dirname(os.path.abspath(__file__))
PROMPT_BYTES = 400


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--text", default=os.path.join(HERE, "..", "docs", "commands.md"))
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gamma", default="0.2")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--llama-server")
    parser.add_argument("--json", help="write the figures here too")
    return parser.parse_args()


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
        """Streams an answer; seconds to its first byte and to its end, and its tokens."""
        start = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        body = {"prompt": prompt, "max_tokens": tokens, "seed": seed, "stream": True, "ignore_eos": True, "temperature": 0.8,
                "stream_options": {"include_usage": True}}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            sys.exit(f"status {answer.status}: {answer.read().decode()}")
        first, made = None, 0
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            part = json.loads(line[6:])
            if first is None and any(choice.get("text") for choice in part["choices"]):
                first = time.perf_counter() - start
            made = (part.get("usage") or {}).get("completion_tokens", made)
        connection.close()
        return first or time.perf_counter() - start, time.perf_counter() - start, made


def prompts_of(text, n, turn):
    """n pieces, others at every turn so that no slot knows them."""
    step = max(1, (len(text) - PROMPT_BYTES) // (n + 1))
    return [f"{turn}: " + text[i * step:i * step + PROMPT_BYTES] for i in range(n)]


def at_once(server, prompts, tokens):
    """All prompts at the same time: seconds, tokens, and each one's time to the first byte."""
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
    return seconds, sum(result[2] for result in results), [result[0] for result in results]


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def show(name, figure, unit):
    print(f"{name:<58} {figure['median']:10.4g} {unit:<9} ({figure['least']:.4g} to {figure['most']:.4g})", flush=True)


def serve(options, slots, *more):
    return Server([options.program, "serve", options.model, "--slots", str(slots), "--ctx", "1024", *more])


def throughput(server, text, n, options):
    return [made / seconds for seconds, made, _ in
            (at_once(server, prompts_of(text, n, turn), options.tokens) for turn in range(options.rounds + 1))][1:]


def measure_clients(options, text, start=serve, name="serve"):
    figures = {}
    with start(options, options.clients) as server:
        for n in (1, options.clients):
            figures[n] = spread(throughput(server, text, n, options))
            show(f"{name}: {n} clients at once", figures[n], "tokens/s")
    ratio = figures[options.clients]["median"] / figures[1]["median"]
    print(f"{'  ratio':<58} {ratio:10.3g}")
    return {"tokens_per_s": figures, "ratio": ratio}


def measure_first(options, text):
    figures = {}
    with serve(options, 9) as server:
        for busy in (0, 8):
            ends = threading.Event()

            def keep_busy(i):
                turn = 0
                while not ends.is_set():
                    server.complete(prompts_of(text, 9, f"busy {i} {turn}")[i], 200, i)
                    turn += 1

            threads = [threading.Thread(target=keep_busy, args=(i,)) for i in range(busy)]
            for thread in threads:
                thread.start()
            time.sleep(1)
            times = [1e3 * server.complete(prompt, 4, 1)[0] for prompt in prompts_of(text, 4 * options.rounds, f"first {busy}")]
            ends.set()
            for thread in threads:
                thread.join()
            figures[busy] = spread(times)
            show(f"time to the first byte, {busy} other slots busy", figures[busy], "ms")
    return {"ms": figures}


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
            threads = [threading.Thread(target=server.complete, args=(prompt, 900, 1)) for prompt in prompts_of(text, busy, "health")]
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


def measure_nash(options, text):
    flags = {"model": (), "nash": ("--router", "nash", "--gamma", options.gamma)}
    speeds, experts = {name: [] for name in flags}, {}
    with serve(options, options.clients) as model, serve(options, options.clients, *flags["nash"]) as nash:
        servers = {"model": model, "nash": nash}
        for turn in range(options.rounds + 1):
            for name, server in servers.items():
                seconds, made, _ = at_once(server, prompts_of(text, options.clients, turn), options.tokens)
                speeds[name].append(made / seconds)
        for name, server in servers.items():
            speeds[name] = spread(speeds[name][1:])
            experts[name] = server.metric("decode_experts_per_step")
            rows = server.metric("decode_sequences_per_step")
            show(f"--router {name}: {options.clients} clients", speeds[name], "tokens/s")
            print(f"  {experts[name]:.2f} experts of a layer in a step of {rows:.1f} sequences", flush=True)
    print(f"  experts {experts['nash'] / experts['model']:.3f} of the model's own, "
          f"speed {speeds['nash']['median'] / speeds['model']['median']:.3f} times")
    return {"tokens_per_s": speeds, "experts_per_step": experts}


def measure_peer(options, text):
    if options.llama_server is None:
        return None

    def start(given, slots):
        return Server([given.llama_server, "-m", given.model, "-np", str(slots), "-c", str(1024 * slots)])

    return measure_clients(options, text, start, "llama-server")


def main():
    options = arguments()
    with open(options.text, encoding="utf-8", errors="replace") as file:
        text = file.read(1 << 20)
    measures = {"clients": measure_clients, "first": measure_first, "health": measure_health, "nash": measure_nash, "peer": measure_peer}
    figures = {name: measures[name](options, text) for name in SECTIONS if name in options.only}
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
