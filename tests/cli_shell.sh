#!/usr/bin/env bash
# Manual pages, and completion in bash (in zsh and fish too where they are): as installed. Usage: cli_shell.sh PROGRAM SOURCE [EMULATOR...]
set -euo pipefail
program=$1 source=$2
shift 2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# Every command has a page with all sections; roff finds nothing to complain about.
"$source/scripts/manual" "$dir/man" "$@" "$program"
commands=$("$@" "$program" --help=options | cut -f 1)
[ "$(wc -w <<<"$commands")" -ge 13 ]
for command in $commands; do
    page=$dir/man/dilmodeli-$command.1
    for section in NAME SYNOPSIS DESCRIPTION OPTIONS EXAMPLES "EXIT STATUS" "SEE ALSO"; do
        grep -q "^.SH $section\$" "$page" || { echo "dilmodeli-$command.1 has no $section"; exit 1; }
    done
    grep -q -- '\\-\\-threads' "$page"
    grep -q "dilmodeli\\\\-$command" "$dir/man/dilmodeli.1"
done
if command -v groff >/dev/null; then
    for page in "$dir"/man/*.1; do
        groff -man -Tutf8 -ww "$page" >"$dir/text" 2>"$dir/warnings"
        [ ! -s "$dir/warnings" ] || { echo "$page:"; cat "$dir/warnings"; exit 1; }
        grep -q "User Commands" "$dir/text"
    done
fi

# A line for each option; one that is no kind of help is refused with what there is.
"$@" "$program" run --help=options | grep -q $'^--prompt\tTEXT\t'
"$@" "$program" run --help=options | grep -q $'^--json\t\t'
status=0
"$@" "$program" run --help=pdf 2>"$dir/message" || status=$?
[ "$status" = 2 ] && grep -q -- "--help=man" "$dir/message"
"$@" "$program" help run | grep -q '^usage: dilmodeli run'

# bash: commands, options of a command, files.
cat >"$dir/dilmodeli" <<EOF
#!/bin/sh
exec $* "$program" "\$@"
EOF
chmod +x "$dir/dilmodeli"
touch "$dir/model.gguf"
complete_bash() { # WORDS...: what the last one may become
    bash -c 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _dilmodeli; printf "%s\n" "${COMPREPLY[@]}"' \
        bash "$source/completions/dilmodeli.bash" "$dir/dilmodeli" "$@"
}
[ "$(complete_bash insp)" = inspect ]
[ "$(complete_bash run --see)" = --seed ]
[ "$(complete_bash run "$dir/mod")" = "$dir/model.gguf" ]
[ "$(complete_bash help topo)" = topology ]
if command -v fish >/dev/null; then
    (cd "$dir" && PATH=$dir:$PATH fish -c "source $source/completions/dilmodeli.fish; complete -C 'dilmodeli insp'" | grep -q '^inspect')
    (cd "$dir" && PATH=$dir:$PATH fish -c "source $source/completions/dilmodeli.fish; complete -C 'dilmodeli run --see'" | grep -q '^--seed')
fi
if command -v zsh >/dev/null; then
    zsh -n "$source/completions/_dilmodeli"
fi
