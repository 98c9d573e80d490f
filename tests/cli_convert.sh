#!/usr/bin/env bash
# The command convert: there and back, what it prints, what it leaves. Usage: cli_convert.sh PROGRAM [EMULATOR...]
set -euo pipefail
source "$(dirname "$0")/cli_common.sh"

printf 'A text to learn from: the cat, the hat, the bat and the rat.\nçok güzel, çok iyi\n' >text.txt
dilmodeli tokenizer train --data text.txt --vocab 280 --out tokenizer.gguf 2>/dev/null >/dev/null
shape=(--layers 2 --dim 32 --heads 4 --kv-heads 2 --context 64 --tokenizer tokenizer.gguf)

for arch in llama qwen2 qwen3 gpt2 qwen3moe; do
    kind=("${shape[@]}" --arch "$arch")
    [ "$arch" = gpt2 ] && kind=(--layers 2 --dim 32 --heads 4 --context 64 --tokenizer tokenizer.gguf --arch gpt2)
    [ "$arch" = qwen3moe ] && kind+=(--experts 4 --top-k 2)
    dilmodeli new "$arch.gguf" "${kind[@]}" --type bf16 --name "$arch" >/dev/null
    code 0 dilmodeli convert "$arch.gguf" "$arch" --json
    only_json
    expect '"tensors":' out
    expect "\"path\":\"$arch\"" out
    for file in config.json tokenizer.json tokenizer_config.json generation_config.json model.safetensors; do
        [ -s "$arch/$file" ] || fail "$arch/$file is written"
    done
    code 0 dilmodeli convert "$arch" "$arch-back.gguf" --threads 1
    expect "$arch-back.gguf: $arch" out
    for model in "$arch" "$arch-back"; do
        dilmodeli run "$model.gguf" -p "the cat" -n 8 --temp 0 --print-ids >"$model.ids" 2>/dev/null
        dilmodeli tokenize "$model.gguf" -p "çok güzel<|endoftext|>the hat" --special >"$model.tokens"
    done
    cmp -s "$arch.ids" "$arch-back.ids" || fail "$arch generates the same there and back"
    cmp -s "$arch.tokens" "$arch-back.tokens" || fail "$arch has the same tokens there and back"
    cmp -s "$arch.gguf" "$arch-back.gguf" || fail "$arch comes back byte by byte"
done

# types, shards, names
code 0 dilmodeli convert qwen3moe small.gguf --type q8_0 --name Serçe
code 0 dilmodeli inspect small.gguf --json
expect '"Q8_0"' out
expect 'Serçe' out
code 0 dilmodeli convert small.gguf shards --shard-size 40k --type f32 --json
expect '"files":' out
[ -s shards/model.safetensors.index.json ] && [ -s shards/model-00002-of-0"$(sed 's/.*"files"://; s/,.*//' out | xargs printf '%04d')".safetensors ] ||
    fail "shards have their names"
code 0 dilmodeli convert shards whole.gguf --type f16
code 0 dilmodeli run whole.gguf -p "the" -n 2
code 0 dilmodeli convert small.gguf dry --dry-run --json
expect '"dry_run":true' out
[ ! -e dry ] || fail "--dry-run writes nothing"
code 0 dilmodeli convert --help
expect 'q4_k_m' out

# what goes wrong: one line, the right code, nothing under the final name
for wrong in "small.gguf llama" "llama shards" "llama text.txt" "nowhere x.gguf" "text.txt folder"; do
    # shellcheck disable=SC2086 # two words
    code 1 dilmodeli convert $wrong
    one_line
done
code 1 dilmodeli convert llama x.gguf --type q9_9
expect 'q4_k_m' err
code 1 dilmodeli convert small.gguf folder --type q4_k_m
one_line
code 2 dilmodeli convert llama
code 2 dilmodeli convert llama x.gguf --shard-size none
code 2 dilmodeli convert llama x.gguf --shard-size -5
cp -r llama broken
sed -i 's/"silu"/"relu"/' broken/config.json
code 1 dilmodeli convert broken x.gguf
one_line
expect "key 'hidden_act' is \"relu\", expected silu" err
sed -i 's/"relu"/"silu"/' broken/config.json
truncate -s -8 broken/model.safetensors
code 1 dilmodeli convert broken x.gguf
one_line
expect 'past its end' err
rm broken/tokenizer.json
cp llama/model.safetensors broken/
code 0 dilmodeli convert broken bare.gguf
expect 'no tokenizer.json' err
[ ! -e x.gguf ] && [ ! -e folder ] || fail "nothing is written on failure"

# a limit on the size of files stands for a full disk
if [ "${#program[@]}" = 1 ]; then
    for pair in "llama full.gguf" "llama.gguf full"; do
        # shellcheck disable=SC2086
        (ulimit -f 8 && trap '' XFSZ && dilmodeli convert $pair >out 2>err) && fail "a full disk fails"
        one_line
    done
    [ ! -e full.gguf ] && [ ! -e full ] || fail "a full disk leaves nothing"
fi
[ -z "$(find . -name '*.tmp-*')" ] || fail "no temporary file is left"
