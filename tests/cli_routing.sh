#!/usr/bin/env bash
# Routing flags of run, eval and bench: what they change, what they print, what is refused. Usage: cli_routing.sh PROGRAM [EMULATOR...]
set -euo pipefail
source "$(dirname "$0")/cli_common.sh"

printf 'A text to learn from: the cat, the hat, the bat and the rat sat on the mat, and that was that.\n%.0s' 1 2 3 4 5 6 >text.txt
dilmodeli tokenizer train --data text.txt --vocab 270 --out tokenizer.gguf >/dev/null 2>&1
dilmodeli new model.gguf --arch qwen3moe --layers 2 --dim 32 --heads 4 --kv-heads 2 --context 64 --experts 8 --top-k 2 \
    --tokenizer tokenizer.gguf >/dev/null

# number KEY FILE: a number of the JSON
number() { sed "s/.*\"$1\":\s*//; s/[,}].*//" "$2"; }
# perplexity FLAGS...: of the text
perplexity() {
    code 0 dilmodeli eval model.gguf --data text.txt --ctx 32 --json "$@"
    only_json
    number perplexity out
}
# holds EXPRESSION: of awk
holds() { awk "BEGIN { exit !($1) }" || fail "$1"; }

plain=$(perplexity)
[ "$(perplexity --router nash --gamma 0 --beta 0 --flock 8)" = "$plain" ] || fail "free experts are the model's choice"
[ "$(perplexity --router nash --disable-experts 1:0)" != "$plain" ] || fail "a disabled expert is missed"
[ "$(perplexity --disable-experts '*:3,0:1')" != "$plain" ] || fail "a disabled expert is missed"
for field in experts_per_token experts_per_step hit_rate bytes_read_per_token sweeps max_regret maxvio; do
    expect "\"$field\":" out
done
perplexity --max-experts 1 >/dev/null
holds "$(number experts_per_token out) == 1"
perplexity --router nash --theta 0.999 --min-experts 1 >/dev/null
holds "$(number experts_per_token out) < 1.5"
perplexity --resident 4 >/dev/null
exact=$(number ram out)
for policy in lru:layers lfu lfu:32 lfru:0.3 slru stale lru:shared lfu:shared stale:shared; do
    near=$(perplexity --resident 4 --evict "$policy")
    holds "$near / $plain > 0.999 && $near / $plain < 1.001 && $(number ram out) > 0"
    perplexity --resident 8 --evict "$policy" >/dev/null
    holds "$(number ram out) > 0.9"
done
perplexity --resident 4 --evict lru >/dev/null
[ "$(number ram out)" = "$exact" ] || fail "lru is the default"
perplexity --router nash --resident 4 --gamma 0.5 >/dev/null
holds "$(number ram out) > $exact"
few=$(number ram out)
perplexity --router nash --resident 4 --gamma 0.5 --flock 2 >/dev/null
[ "$(number ram out)" = "$few" ] || fail "who looks at the residents misses nothing in all others"
perplexity --router nash --resident 4 --gamma 0.5 --flock 2 --flock-resident -1 >/dev/null
holds "$(number ram out) < $few"
priced=$(perplexity --router nash --resident 4 --gamma 0.2 --payoff affinity)
[ "$priced" != "$(perplexity --router nash --resident 4 --gamma 0.2)" ] || fail "payoffs matter"
perplexity --sequences 4 --router nash --gamma 0 >/dev/null
apart=$(number experts_per_step out)
perplexity --sequences 4 --router nash --gamma 0.8 --keep-top 0 --flock 8 >/dev/null
holds "$(number experts_per_step out) < $apart"
perplexity --overlap 16 --joint 8 --router nash --gamma 0.5 >/dev/null
holds "$(number changed out) > 0"

# the largest gamma within a loss
max_loss() {
    code 0 dilmodeli eval model.gguf --data text.txt --ctx 32 --max-loss "$@"
}
max_loss 0.05% --router nash --resident 4 --keep-top 0 --evict lfu:32 --disable-experts '*:3' --json
[ "$(wc -l <out)" = 1 ] || fail "--json prints one line"
untimed() {
    sed 's/"tokens_per_s":[^,]*,//'
}
untimed <out >found
for field in limit gamma perplexity_model change hit_rate_model passes end options tried; do
    expect "\"$field\":" found
done
holds "$(number limit found) == 0.0005 && $(number passes found) == $(wc -l <err)"
expect 'pass 1 of at most 11' err
options=$(sed 's/.*"options":"//; s/".*//' found)
expect "--router nash --gamma" found
eval "perplexity $options" >/dev/null
sed 's/,"tried":.*//' found >outcome
[ "$(number perplexity out)" = "$(number perplexity outcome)" ] || fail "the options given are those of the gamma found"
[ "$(number ram out)" = "$(number ram found)" ] || fail "the options given are those of the gamma found"
perplexity --resident 4 --evict lfu:32 --disable-experts '*:3' >/dev/null
[ "$(number perplexity out)" = "$(number perplexity_model found)" ] || fail "the model's own choice is what --router model does"
[ "$(number ram out)" = "$(number hit_rate_model found)" ] || fail "its hit rate too"
max_loss 0.0005 --router nash --resident 4 --keep-top 0 --evict lfu:32 --disable-experts '*:3' --json
untimed <out | cmp - found || fail "0.0005 is 0.05%"
max_loss 99% --router nash --resident 4
expect 'largest gamma  any' out
expect 'options        --router nash --gamma' out
expect "model's own" out
max_loss 1% --router nash --sequences 4
max_loss 1% --router nash --joint 8 --overlap 16
code 1 dilmodeli eval model.gguf --data text.txt --ctx 32 --max-loss 1% --router nash
one_line
expect 'nothing here has a price' err

# traces
perplexity --router nash --resident 4 --gamma 0.5 --evict lfu:shared --trace experts.trace >/dev/null
[ "$(head -c 8 experts.trace)" = DMTRACE1 ] || fail "a trace begins with its name"
perplexity --trace plain.trace >/dev/null
cp plain.trace before.trace
code 0 dilmodeli eval model.gguf --data text.txt --ctx 32 --trace plain.trace
cmp plain.trace before.trace || fail "traces of the same text are the same"
code 1 dilmodeli eval model.gguf --data text.txt --trace no/such/folder.trace
one_line
dilmodeli new dense.gguf --arch llama --layers 1 --dim 32 --heads 2 --ffn-dim 32 --context 64 --tokenizer tokenizer.gguf >/dev/null
code 1 dilmodeli eval dense.gguf --data text.txt --trace dense.trace
one_line
[ ! -e dense.trace ] || fail "a trace of nothing"
ls -- *.tmp-* 2>/dev/null && fail "temporary files are left"

code 0 dilmodeli run model.gguf -p "the cat" -n 6 --temp 0 --json --router nash --gamma 0.3 --resident 3 --joint 4
only_json
expect '"hit_rate":' out
code 0 dilmodeli bench model.gguf --prompt 8 --decode 4 --sequences 2 --rounds 1 --no-limits --json --router nash --gamma 0.3
expect '"experts_per_step":' out
code 0 dilmodeli eval model.gguf --data text.txt --ctx 32 --router nash --resident 3 --sleep 0.9
expect 'resident' out
expect 'sweeps' out

# refused
echo "1 2 3" >ids.txt
code 2 dilmodeli eval model.gguf --ids ids.txt --logits out.npy --router nash
code 2 dilmodeli eval model.gguf --ids ids.txt --logits out.npy --max-experts 1
code 2 dilmodeli eval model.gguf --ids ids.txt --logits out.npy --max-loss 1%
code 0 dilmodeli eval model.gguf --ids ids.txt --logits out.npy
for wrong in "--router swarm" "--gamma 1" "--payoff affinity" "--router nash --payoff x" "--router nash --flock-resident -2" "--router nash --flock -1" "--sleep x" "--disable-experts 1" "--disable-experts 1:2," \
    "--disable-experts 1:-2" "--disable-experts :2" "--sequences -1" "--evict lru" "--resident 2 --evict fifo" "--resident 2 --evict lfu:0" \
    "--resident 2 --evict belady" "--resident 2 --evict lru:local" "--max-loss 1% --resident 2" \
    "--max-loss 1% --router nash --resident 2 --gamma 0.1" "--max-loss 1 --router nash --resident 2" \
    "--max-loss 1%% --router nash --resident 2" "--max-loss -1% --router nash --resident 2" "--max-loss % --router nash --resident 2" \
    "--max-loss 1% --router nash --resident 2 --trace x.trace" "--max-loss 1% --router nash --resident 2 --base model.gguf"; do
    # shellcheck disable=SC2086
    code 2 dilmodeli eval model.gguf --data text.txt $wrong
done
for wrong in "--router nash --flock 9" "--router nash --flock-resident 9 --gamma 1" "--router nash --gamma -1" "--router nash --theta 2" "--router nash --min-experts 1" \
    "--max-experts 3" "--resident 9" "--sleep 1" "--disable-experts 2:0" "--disable-experts 0:8" \
    "--disable-experts 0:0,0:1,0:2,0:3,0:4,0:5,0:6"; do
    for command in "eval model.gguf --data text.txt" "run model.gguf -p a -n 1" "bench model.gguf --rounds 1 --no-limits"; do
        # shellcheck disable=SC2086
        code 1 dilmodeli $command $wrong
        one_line
    done
done
echo "all as expected"
