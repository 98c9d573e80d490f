#!/bin/sh
# Trains two small models on this project's own sources and compares their text with llama.cpp's, see greedy.mjs; then fresh
# models of every type of weights, see distributions.mjs; then vocabularies of converted folders, see tokenizers.mjs.
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
set -- "$folder/moe/model.gguf" "$folder/gpt2/model.gguf" ${reference:+"$reference"}
for arch in llama mixtral olmoe qwen2moe; do # random weights; beside some checkouts too
    tiny=$source/../shared/models/$arch-tiny.gguf
    [ ! -r "$tiny" ] || set -- "$@" "$tiny"
done
node "$peer/greedy.mjs" "$program" "$@"

for type in q8_0 q6_k q5_k_m q5_1 q5_0 q4_k_m q4_1 q4_0 iq4_nl iq4_xs q3_k_m q2_k bf16; do
    "$program" new "$folder/$type.gguf" --arch llama --dim 256 --layers 2 --heads 4 --kv-heads 2 --experts 4 --top-k 2 \
        --expert-dim 256 --vocab 300 --type $type --json >/dev/null
done
"$program" new "$folder/whole.gguf" --arch llama --dim 256 --layers 2 --heads 4 --kv-heads 2 --experts 4 --top-k 2 --expert-dim 256 --vocab 300 \
    --type f16 --json >/dev/null
"$program" quantize "$folder/whole.gguf" "$folder/compat.gguf" --bpw 4.5 --data "$source/README.md" --tokens 512 --compat --json >/dev/null
rm "$folder/whole.gguf"
node "$peer/distributions.mjs" "$program" "$folder"/*.gguf

if [ ! -d "$peer/node_modules/@huggingface/tokenizers" ]; then
    echo "vocabularies are not compared: Hugging Face's tokenizers are not installed; run 'make peer'"
    exit 0
fi
set -- "$folder/moe/model.gguf"
for vocabulary in "$source"/../shared/tokenizer/ggml-vocab-*.gguf; do # beside some checkouts
    [ ! -r "$vocabulary" ] || set -- "$@" "$vocabulary"
done
node "$peer/tokenizers.mjs" "$program" "$folder" "$@" -- "$source/README.md" "$source/README.tr.md" "$source/src/model/rope.c"
