#!/usr/bin/env bash
# The examples build outside the tree against the installed header and pkg-config file, with the shared and with the
# static library, and run. Usage: install.sh BUILD CC FLAGS [EMULATOR...]
set -euo pipefail
examples=$(dirname "$0")/../examples
build=$1 cc=$2 flags=$3
shift 3
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cmake --install "$build" --prefix "$dir/usr" >/dev/null
# Moved after the installation: the pkg-config file must find its prefix by itself.
mv "$dir/usr" "$dir/moved"
[ -s "$dir/moved/share/man/man1/dilmodeli-run.1" ]
[ -s "$dir/moved/share/bash-completion/completions/dilmodeli" ]
pc=$(find "$dir/moved" -name dilmodeli.pc)
export PKG_CONFIG_PATH=${pc%/*}
lib=${PKG_CONFIG_PATH%/pkgconfig}

"$@" "$dir/moved/bin/dilmodeli" new "$dir/model.gguf" --layers 1 --dim 32 --heads 2 --kv-heads 1 --experts 2 --top-k 1 \
    --expert-dim 16 --context 64 >/dev/null
generates() { # PROGRAM: text from a model, and one line about a file that is none
    "$@" "$dir/model.gguf" "abc" >"$dir/text"
    [ -s "$dir/text" ]
    if "$@" "$0" "abc" 2>"$dir/message"; then
        echo "a file that is no model was accepted"
        return 1
    fi
    grep -q "$0" "$dir/message"
}
routes() { # PROGRAM: the crowded expert loses a token, and nobody would rather be elsewhere
    "$@" >"$dir/text"
    grep -q "expert 1" "$dir/text"
    grep -q "at rest: yes" "$dir/text"
}
build_example() { # NAME OUTPUT PKG-CONFIG-OPTIONS...
    local example=$examples/$1.c out=$2
    shift 2
    # shellcheck disable=SC2046,SC2086
    $cc $flags -std=c17 -Wall -Wextra -Werror "$example" -o "$out" $(pkg-config "$@" --cflags --libs dilmodeli)
}
build_example generate "$dir/shared"
build_example route "$dir/route-shared"
LD_LIBRARY_PATH=$lib generates "$@" "$dir/shared"
LD_LIBRARY_PATH=$lib routes "$@" "$dir/route-shared"
rm "$lib"/libdilmodeli.so*
build_example generate "$dir/static" --static
build_example route "$dir/route-static" --static
generates "$@" "$dir/static"
routes "$@" "$dir/route-static"
