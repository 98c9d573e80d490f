#!/usr/bin/env bash
# The commands new and inspect: what they print, what they return. Usage: cli_files.sh PROGRAM [EMULATOR...]
set -euo pipefail
source "$(dirname "$0")/cli_common.sh"

shape=(--layers 2 --dim 32 --heads 2 --experts 4 --top-k 2 --vocab 300)
code 0 dilmodeli new a.gguf "${shape[@]}" --type f16 --seed 3 --json
only_json
expect '"params":' out
expect '"active_params":' out
code 0 dilmodeli new b.gguf "${shape[@]}" --type f16 --seed 3 --threads 1
cmp a.gguf b.gguf || fail "the same seed makes the same file"
code 0 dilmodeli new c.gguf "${shape[@]}" --type f16 --seed 4
cmp -s a.gguf c.gguf && fail "another seed makes another file"
code 0 dilmodeli new q.gguf "${shape[@]}" --dim 256 --type Q4_K_M --seed 3
code 0 dilmodeli new r.gguf "${shape[@]}" --dim 256 --type q4_k_m --seed 3 --threads 1
cmp q.gguf r.gguf || fail "the number of threads makes no difference"
code 0 dilmodeli inspect q.gguf --json
only_json
expect '"Q4_K":{"tensors":' out
expect '"bpw":4.5' out
expect '"general.file_type":15' out
code 0 dilmodeli inspect q.gguf --summary
expect 'per weight' out

code 0 dilmodeli inspect a.gguf --json
only_json
for word in '"arch":"qwen3moe"' '"tensors":[{"name":"token_embd.weight","type":"F16","dims":[32,300],"bytes":19200}' \
    '"version":3' '"qwen3moe.expert_count":4' '"active_params":'; do
    expect "$word" out
done
code 0 dilmodeli inspect a.gguf
expect 'blk.1.ffn_down_exps.weight' out
expect 'tokenizer.ggml.tokens' out
code 0 dilmodeli inspect a.gguf --summary
grep -q 'ffn_down_exps' out && fail "--summary lists no tensors"
code 0 dilmodeli inspect --help

# what goes wrong: one line, the right code, no file
code 1 dilmodeli inspect nowhere.gguf
[ "$(wc -l <err)" = 1 ] || fail "one line says what failed"
expect 'nowhere.gguf' err
head -c 500 a.gguf >cut.gguf
code 1 dilmodeli inspect cut.gguf
[ "$(wc -l <err)" = 1 ] || fail "one line says what failed"
code 1 dilmodeli new d.gguf --arch gpt2 --experts 4
code 1 dilmodeli new d.gguf --type q9_0
expect 'q4_k_m' err
code 2 dilmodeli new d.gguf --layers -1
code 2 dilmodeli new d.gguf --shape nothing
expect 'moe-22m' err
code 2 dilmodeli new
code 2 dilmodeli inspect a.gguf b.gguf
[ ! -e d.gguf ] || fail "nothing is written on failure"
