"""Results of long measurements that are kept on disk, so that a script goes on where it was stopped; and tables for documents."""
import hashlib
import json
import os
import subprocess
import sys
import time

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "dilmodeli")
FOLDER = os.path.join(CACHE, "routing")


def file_facts(path):
    """What tells a file from another under the same name."""
    facts = os.stat(path)
    return [os.path.realpath(path), facts.st_size, facts.st_mtime_ns]


def digest(value):
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()[:12]


def mixed(folder, limit):
    """A file of `limit` bytes together, the same share of every file of a folder, up to the end of a line."""
    files = sorted(os.listdir(folder))
    share = min(1.0, limit / sum(os.path.getsize(os.path.join(folder, name)) for name in files)) if limit else 1.0
    parts = []
    for name in files:
        with open(os.path.join(folder, name), "rb") as file:
            text = file.read()
        parts.append(text[:text.rfind(b"\n", 0, round(len(text) * share)) + 1])
    path = os.path.join(FOLDER, f"mixed-{digest([os.path.abspath(folder), limit])}.txt")
    os.makedirs(FOLDER, exist_ok=True)
    with open(path, "wb") as file:
        file.write(b"".join(parts))
    return path


def text(path, limit):
    """A text: the file itself, or of a folder what mixed() makes of it."""
    return mixed(path, limit) if os.path.isdir(path) else path


class Store:
    """A folder of results. One that is there is not measured again, unless `again`."""

    def __init__(self, part, program, again=False):
        self.folder = os.path.join(FOLDER, part)
        self.again = again
        self.used, self.strange = 0, 0
        self.known = {}  # in this process
        os.makedirs(self.folder, exist_ok=True)
        with open(program, "rb") as file:
            self.program = digest(file.read())

    def get(self, name, facts, measure):
        """measure() gives what JSON can hold; `facts` is all that the result depends on but the program."""
        path = os.path.join(self.folder, f"{name}-{digest(facts)}.json")
        if path in self.known:
            return self.known[path]
        if os.path.exists(path) and not self.again:
            with open(path, encoding="utf-8") as file:
                kept = json.load(file)
            self.used += 1
            self.strange += kept["program"] != self.program
            self.known[path] = kept["result"]
            return kept["result"]
        start = time.monotonic()
        result = measure()
        kept = {"facts": facts, "program": self.program, "when": time.strftime("%Y-%m-%d %H:%M:%S"),
                "seconds": round(time.monotonic() - start, 1), "result": result}
        with open(path + ".tmp", "w", encoding="utf-8") as file:
            json.dump(kept, file, indent=1)
        os.replace(path + ".tmp", path)
        self.known[path] = result
        return result

    def tell(self):
        if self.used:
            other = f", {self.strange} of them by another build of the program" if self.strange else ""
            print(f"{self.used} results were there already in {self.folder}{other}; --again measures them anew", file=sys.stderr)


def as_typed(path):
    """A path as a reader would write it."""
    home = os.path.expanduser("~") + "/"
    return "~/" + path[len(home):] if path.startswith(home) else path


def call(command):
    """Standard output and error of a program; when it fails, its last line ends the script."""
    print("+ " + " ".join(command), file=sys.stderr)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        sys.exit(f"{os.path.basename(sys.argv[0])}: `{' '.join(command)}`: {lines[-1]}")
    return done.stdout, done.stderr


def object_of(command):
    """The JSON object that a program prints."""
    return json.loads(call(command)[0])


def table(title, command, head, rows):
    """Prints a table in Markdown, with the command that gives it."""
    print(f"\n{title} (`{command}`):\n\n| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    sys.stdout.flush()


def mean_range(values, style=".3f"):
    """Mean (least to most)."""
    if not values:
        return "-"
    mean = format(sum(values) / len(values), style)
    return mean if len(values) == 1 else f"{mean} ({format(min(values), style)} to {format(max(values), style)})"
