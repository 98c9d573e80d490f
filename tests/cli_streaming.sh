#!/usr/bin/env bash
# Experts that memory has no room for: --ram and --memory of run, eval and bench. Usage: cli_streaming.sh PROGRAM [EMULATOR...]
set -euo pipefail
source "$(dirname "$0")/cli_common.sh"

printf 'A text to learn from: the cat, the hat, the bat and the rat sat on the mat, and that was that.\n%.0s' 1 2 3 4 5 6 >text.txt
dilmodeli tokenizer train --data text.txt --vocab 270 --out tokenizer.gguf >/dev/null 2>&1
dilmodeli new model.gguf --arch qwen3moe --layers 2 --dim 32 --heads 4 --kv-heads 2 --context 64 --experts 8 --top-k 2 \
    --tokenizer tokenizer.gguf >/dev/null
dilmodeli convert model.gguf laid-out.gguf --layout streaming >/dev/null 2>&1

# number KEY FILE: a number of the JSON
number() { sed "s/.*\"$1\":\s*//; s/[,}].*//" "$2"; }
# perplexity FLAGS...: of the text, read token by token
perplexity() {
    code 0 dilmodeli eval "$@" --data text.txt --ctx 32 --sequences 1 --json
    only_json
    number perplexity out
}
holds() { awk "BEGIN { exit !($1) }" || fail "$1"; }

plain=$(perplexity model.gguf)
expect '"stream":null' out
for model in model.gguf laid-out.gguf; do
    for memory in "--ram 50%" "--ram 50% --evict lru" "--ram 50% --prefetch 1" "--ram 50% --prefetch 2 --disk-timeout 60" "--ram 100%" "--ram 100M" "--ram auto" "--memory 1G"; do
        # shellcheck disable=SC2086
        [ "$(perplexity "$model" $memory)" = "$plain" ] || fail "$model $memory changes what is computed"
        holds "$(number slots out) > 0 && $(number bytes_read out) > 0 && $(number ram out) > 0"
    done
done
# half of the slots miss about as the simulation says, which uses a token's experts in another order
perplexity model.gguf --resident 4 --evict lru >/dev/null
simulated=$(number ram out)
perplexity model.gguf --ram 50% --evict lru >/dev/null
holds "$(number slots out) == 8 && $(number experts out) == 16"
holds "($(number ram out) - $simulated)^2 < 0.01"
# the game prefers what is there
exact=$(number ram out)
perplexity model.gguf --ram 50% --evict lru --router nash --gamma 1 --keep-top 0 >/dev/null
holds "$(number ram out) > $exact"
code 0 dilmodeli eval model.gguf --data text.txt --ctx 32 --sequences 1 --router nash --keep-top 0 --ram 50% --max-loss 50%
expect 'tokens/s' out
expect 'for 8 of 16 experts' out

dilmodeli run model.gguf -p "the cat" -n 12 --temp 0 >expected
dilmodeli run model.gguf -p "the cat" -n 12 --temp 0 --ram 30% >out
cmp expected out || fail "another text with a budget"
code 0 dilmodeli bench model.gguf --prompt 8 --decode 4 --sequences 2 --rounds 1 --no-limits --json --ram 50% --prefetch 1
expect '"slots":8' out
holds "$(number guessed out) >= $(number used out) && $(number used out) > 0 && $(number usefulness out) <= 1"
code 0 dilmodeli bench model.gguf --prompt 8 --decode 4 --rounds 1 --no-limits --json --ram 50%
expect '"guessed":0' out

# refused
for wrong in "--ram 0" "--ram x" "--ram 120%" "--ram -5%" "--memory 1Q" "--ram 1G --memory 1G" "--ram 50% --resident 2" \
    "--ram 50% --evict fifo" "--ram 50% --prefetch 5" "--ram 50% --prefetch -1" "--prefetch 1" "--disk-timeout 5" \
    "--ram 50% --disk-timeout -1" "--ram 50% --disk-timeout nan"; do
    # shellcheck disable=SC2086
    code 2 dilmodeli eval model.gguf --data text.txt $wrong
done
for wrong in "--ram 1" "--memory 2M" "--ram 50% --evict lru:shared"; do
    for command in "eval model.gguf --data text.txt" "run model.gguf -p a -n 1" "bench model.gguf --rounds 1 --no-limits"; do
        # shellcheck disable=SC2086
        code 1 dilmodeli $command $wrong
        one_line
    done
done
dilmodeli run model.gguf -p a -n 1 --ram 1 2>err >/dev/null || true
expect 'the least that works is' err
dilmodeli new dense.gguf --arch llama --layers 1 --dim 32 --heads 4 --context 64 --tokenizer tokenizer.gguf >/dev/null
code 1 dilmodeli run dense.gguf -p a -n 1 --ram 50%
one_line
expect 'only models that have experts' err
