#!/bin/sh
# Trains two small models on this project's own sources and compares them with llama.cpp, see greedy.mjs.
# usage: test_peer.sh PROGRAM SOURCE_FOLDER; 77 where Node.js or the package is missing.
set -eu
program=$1 source=$2
peer=$source/tests/peer
if ! command -v node >/dev/null; then
    echo "skipped: Node.js is not installed"
    exit 77
fi
if [ ! -d "$peer/node_modules/node-llama-cpp" ]; then
    echo "skipped: the peer is not installed; run 'make peer'"
    exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
common="--vocab 600 --layers 2 --dim 64 --heads 4 --context 128 --batch 8 --steps 60 --valid-every 0 --sample-every 0"
# shellcheck disable=SC2086
"$program" train --data "$source/src" --out "$folder/moe" $common --kv-heads 2 --head-dim 24 --experts 8 --top-k 2 \
    --expert-dim 48 --balance switch --json
# shellcheck disable=SC2086
"$program" train --data "$source/src" --out "$folder/gpt2" $common --arch gpt2 --tokenizer "$folder/moe/model.gguf" --json
reference=$source/../shared/models/ref-moe.gguf # in half precision; beside some checkouts
[ -r "$reference" ] || reference=
node "$peer/greedy.mjs" "$program" "$folder/moe/model.gguf" "$folder/gpt2/model.gguf" ${reference:+"$reference"}
