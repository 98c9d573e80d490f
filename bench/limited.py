"""Programs under a limit of memory: each alone in a control group, whose memory the files that it reads through the page cache
count in, with a cold page cache; what it took, and what the system counted of its reads."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

INTERVAL = 0.02  # seconds between looks at a running program


def refuse(what):
    sys.exit(f"{os.path.basename(sys.argv[0])}: {what}")


def write(path, value):
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(value))
    except OSError as error:
        refuse(f"{path}: could not write {value}: {error.strerror}; a limit of memory needs root and control groups of one's own")


def number(path):
    """None where the file is not there."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def pairs(path):
    """{name: number} of lines "name number", with or without a colon; {} where the file is not there."""
    try:
        with open(path, encoding="ascii") as file:
            return {fields[0].rstrip(":"): int(fields[1]) for fields in map(str.split, file) if len(fields) > 1 and
                    fields[1].isdigit()}
    except OSError:
        return {}


def forget_files():
    """Out of the page cache with everything that is not in use."""
    os.sync()
    write("/proc/sys/vm/drop_caches", 3)


# ---- Control groups ----

class Group:
    """A control group with a limit of memory, without swap. Where versions differ, files have the names of version 2."""

    names = {"limit": "memory.max", "swap": "memory.swap.max", "peak": "memory.peak", "usage": "memory.current", "own": "anon"}

    def __init__(self, parent, limit):
        self.folder = os.path.join(parent, f"dilmodeli-{os.getpid()}")
        self.seen = self.own = 0  # most bytes at the looks so far: all of them, and those that are no file's
        try:
            os.makedirs(self.folder, exist_ok=True)
        except OSError as error:
            refuse(f"{self.folder}: {error.strerror}; a limit of memory needs root")
        write(self.path("limit"), round(limit))
        self.forbid_swap(limit)

    def path(self, what):
        return os.path.join(self.folder, self.names[what])

    def forbid_swap(self, _limit):
        if os.path.exists(self.path("swap")):
            write(self.path("swap"), 0)

    def enter(self):
        """Of the process that calls it."""
        with open(os.path.join(self.folder, "cgroup.procs"), "w", encoding="ascii") as file:
            file.write("0")

    def look(self):
        self.seen = max(self.seen, number(self.path("usage")) or 0)
        self.own = max(self.own, pairs(os.path.join(self.folder, "memory.stat")).get(self.names["own"], 0))

    def peak(self):
        return number(self.path("peak")) or self.seen  # version 2 has no peak before Linux 5.19

    def killed(self):
        """Whether the system ended a program for its memory."""
        return pairs(os.path.join(self.folder, "memory.events")).get("oom_kill", 0) > 0

    def close(self):
        os.rmdir(self.folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class GroupVersion1(Group):
    names = {"limit": "memory.limit_in_bytes", "swap": "memory.memsw.limit_in_bytes", "peak": "memory.max_usage_in_bytes",
             "usage": "memory.usage_in_bytes", "own": "rss"}

    def forbid_swap(self, limit):
        if os.path.exists(self.path("swap")):
            write(self.path("swap"), round(limit))  # memory and swap together

    def killed(self):
        return pairs(os.path.join(self.folder, "memory.oom_control")).get("oom_kill", 0) > 0

    def close(self):
        write(os.path.join(self.folder, "memory.force_empty"), 0)  # what it read stays charged to it
        super().close()


def make_group(limit):
    """Below the root of the memory controller, version 1 or 2, whichever this machine has."""
    with open("/proc/mounts", encoding="utf-8") as file:
        mounts = [line.split() for line in file]
    for _, folder, kind, options, *_ in mounts:
        if kind == "cgroup" and "memory" in options.split(","):
            return GroupVersion1(folder, limit)
    for _, folder, kind, *_ in mounts:
        if kind == "cgroup2" and "memory" in words(os.path.join(folder, "cgroup.controllers")):
            children = os.path.join(folder, "cgroup.subtree_control")
            if "memory" not in words(children):
                write(children, "+memory")
            return Group(folder, limit)
    return refuse("no control groups for memory are mounted (expected /sys/fs/cgroup): whole-process limits cannot be set here")


def words(path):
    with open(path, encoding="ascii") as file:
        return file.read().split()


# ---- Running ----

class Reads:
    """Bytes that a process has had read from the disk, its threads' and its page faults' among them, by time."""

    def __init__(self):
        self.samples = []

    def look(self, process):
        self.samples.append((time.monotonic(), pairs(f"/proc/{process}/io").get("read_bytes", 0)))

    def in_last(self, seconds):
        end, most = self.samples[-1]
        return most - max((read for at, read in self.samples if at <= end - seconds), default=0)


def ended(process):
    """Whether it has ended; it stays where its counters can be read."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def watch(process, group):
    reads = Reads()
    while not ended(process):
        reads.look(process.pid)
        group.look()
        time.sleep(INTERVAL)
    reads.look(process.pid)
    process.wait()
    return reads


def start(command, group, **files):
    return subprocess.Popen(command, preexec_fn=group.enter, **files)


def run(command, limit):
    """One program with so many bytes of memory and a cold page cache: what it printed as JSON, and of the system {"seconds",
    "peak", "own", "reads"}; {"killed": True, ..} where memory was not enough, {"failed": its last lines, ..} where it gave up."""
    print(f"+ [{limit / 1e6:.0f} MB] " + " ".join(command), file=sys.stderr)
    forget_files()
    with make_group(limit) as group, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.monotonic()
        process = start(command, group, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            reads = watch(process, group)
        finally:
            process.kill()
            process.wait()
        found = {"seconds": time.monotonic() - began, "peak": group.peak(), "own": group.own}
        if group.killed():
            return {**found, "killed": True}
        if process.returncode != 0:
            return {**found, "failed": last_lines(contents(err), process.returncode)}
        return {**json.loads(contents(out)), **found, "reads": reads}


def contents(file):
    file.seek(0)
    return file.read()


def last_lines(errors, status):
    """Two, for the last one may only tell where to read on."""
    lines = errors.strip().splitlines()[-2:]
    return "; ".join(lines) or (f"exit status {status}" if status >= 0 else signal.Signals(-status).name)
