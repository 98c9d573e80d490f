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

# experts laid out for streaming, and stacked again
code 0 dilmodeli convert small.gguf streaming.gguf --layout streaming --json
only_json
expect '"tensors":' out
code 0 dilmodeli inspect streaming.gguf --json
expect '"layout":"streaming"' out
expect '"dilmodeli.layout":"streaming"' out
expect '"blk.1.ffn_down.3.weight"' out
code 0 dilmodeli inspect streaming.gguf --summary
expect 'each expert is one aligned read' out
code 0 dilmodeli inspect small.gguf --json
expect '"layout":"standard"' out
code 0 dilmodeli inspect llama.gguf --json
if grep -q '"layout":' out; then fail "a dense model has no layout"; fi
echo "1 2 3 250 17 4 99 5" >ids.txt
for model in small streaming; do
    dilmodeli run "$model.gguf" -p "the cat" -n 8 --temp 0 --print-ids >"$model.ids" 2>/dev/null
    code 0 dilmodeli eval "$model.gguf" --ids ids.txt --logits "$model.npy"
done
[ -s small.ids ] || fail "the model generates"
cmp -s small.ids streaming.ids || fail "the same is generated in either layout"
cmp -s small.npy streaming.npy || fail "logits are the same in either layout"
code 0 dilmodeli convert streaming.gguf standard.gguf --layout standard
expect 'standard.gguf: qwen3moe' out
cmp -s small.gguf standard.gguf || fail "a model comes back byte by byte"
code 0 dilmodeli convert qwen3moe direct.gguf --layout streaming --type q8_0 --name Serçe
cmp -s streaming.gguf direct.gguf || fail "a folder becomes the same file at once"
code 0 dilmodeli convert small.gguf later.gguf --layout streaming --dry-run --json
expect '"dry_run":true' out
for wrong in "streaming.gguf later.gguf --layout streaming" "small.gguf later.gguf --layout standard" "llama.gguf later.gguf --layout streaming" \
    "llama later.gguf --layout streaming" "small.gguf later.gguf --layout upside-down" "small.gguf later.gguf --layout streaming --type f16" \
    "small.gguf text.txt --layout streaming" "small.gguf llama --layout streaming"; do
    # shellcheck disable=SC2086 # several words
    code 1 dilmodeli convert $wrong
    one_line
done
[ ! -e later.gguf ] || fail "what is refused, or not to be written, is not"

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
    for pair in "llama full.gguf" "llama.gguf full" "small.gguf full.gguf --layout streaming"; do
        # shellcheck disable=SC2086
        (ulimit -f 8 && trap '' XFSZ && dilmodeli convert $pair >out 2>err) && fail "a full disk fails"
        one_line
    done
    [ ! -e full.gguf ] && [ ! -e full ] || fail "a full disk leaves nothing"
fi
[ -z "$(find . -name '*.tmp-*')" ] || fail "no temporary file is left"
