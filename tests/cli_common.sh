# shellcheck shell=bash
# What the tests of the commands share; sourced by them with PROGRAM [EMULATOR...]. They run in a folder of their own.
program=("${@:2}" "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1

dilmodeli() { "${program[@]}" "$@"; }
fail() {
    echo "FAILED: $1" >&2
    exit 1
}
# expect WORD FILE: the file has the word
expect() { grep -qF -- "$1" "$2" || { cat "$2"; fail "expected $1"; }; }
# code N COMMAND...: the command returns N
code() {
    want=$1
    shift
    got=0
    "$@" >out 2>err || got=$?
    [ "$got" = "$want" ] || { cat out err; fail "$* returned $got, expected $want"; }
}

# One line was printed, and nothing on standard error.
only_json() {
    if [ "$(wc -l <out)" != 1 ] || [ -s err ]; then
        fail "--json prints one line and nothing else"
    fi
}
# One line says what failed.
one_line() { [ "$(wc -l <err)" = 1 ] || { cat err; fail "one line says what failed"; }; }

# field NAME FILE: the first value of this name in an object; same A B: two numbers agree to 8 digits
field() { grep -o "\"$1\":[^,}]*" "$2" | sed -n '1s/.*://p'; }
same() { awk "BEGIN { d = $1 - $2; exit !(d * d <= 1e-16 * $1 * $1) }"; }
