"""What the long measuring scripts understand alike on their command lines."""
import argparse


def numbers(text):
    return [float(part) for part in text.split(",")]


def parser(description, sections):
    """A parser that knows the program, and the options of all; the first line of `description` goes into its help."""
    found = argparse.ArgumentParser(description=description.split("\n", maxsplit=1)[0])
    found.add_argument("program")
    found.add_argument("--only", nargs="+", choices=sections, default=sections)
    found.add_argument("--limit", type=int, default=65536, help="bytes of the text that each perplexity is of; 0: all")
    found.add_argument("--ctx", type=int, default=512)
    found.add_argument("--rounds", type=int, default=5, help="of speeds")
    found.add_argument("--again", action="store_true", help="measure what is there already")
    return found
