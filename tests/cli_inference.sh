#!/usr/bin/env bash
# The commands run and eval: what they print, what they return. Usage: cli_inference.sh PROGRAM [EMULATOR...]
set -euo pipefail
source "$(dirname "$0")/cli_common.sh"

shape=(--layers 2 --dim 32 --heads 2 --context 64)
dilmodeli new moe.gguf "${shape[@]}" --experts 4 --top-k 2 --type f16 --seed 3 >/dev/null
dilmodeli new dense.gguf "${shape[@]}" --arch gpt2 --seed 4 >/dev/null
printf 'A text of some length, to be predicted byte by byte.\nçok güzel\n' >text.txt

for model in moe.gguf dense.gguf; do
    code 0 dilmodeli run "$model" -p "Hello" -n 12 --temp 0 --json
    only_json
    for word in '"text":' '"tokens":' '"ids":[' '"prompt_tokens":5' '"prompt_tps":' '"decode_tps":' '"peak_rss_bytes":' \
        '"routing":{' '"experts_per_token":'; do
        expect "$word" out
    done
    cut -d: -f 2-4 out >first
    code 0 dilmodeli run "$model" -p "Hello" -n 12 --temp 0 --json --seed 9 --threads 1
    cut -d: -f 2-4 out | cmp -s - first || fail "greedy does not depend on the seed"
done
code 0 dilmodeli run moe.gguf -p "Hello" -n 12 --seed 5 --print-ids
mv out first
code 0 dilmodeli run moe.gguf -p "Hello" -n 12 --seed 5 --print-ids
cmp -s out first || fail "the same seed draws the same tokens"
code 0 dilmodeli tokenize moe.gguf -p "Hello"
mv out ids.txt
code 0 dilmodeli run moe.gguf --ids ids.txt -n 12 --seed 5 --print-ids
cmp -s out first || fail "ids stand for their text"
printf 'Hello' | dilmodeli run moe.gguf -n 12 --seed 5 --print-ids >out
cmp -s out first || fail "the prompt may come from standard input"
code 0 dilmodeli run moe.gguf -p "" -n 3 --json
expect '"prompt_tokens":1' out
code 0 dilmodeli run moe.gguf -p "Hello" -n 500 --json
expect '"prompt_tokens":5' out # and the end of the context stops it

# a session on disk: the same prompt is known the next time, a longer one in part
code 0 dilmodeli run moe.gguf -p "Hello" -n 5 --temp 0 --json --session kept.dms
expect '"known_tokens":0' out
code 0 dilmodeli run moe.gguf -p "Hello" -n 5 --temp 0 --json --session kept.dms
expect '"prompt_tokens":1,"known_tokens":4' out
code 0 dilmodeli run moe.gguf -p "Hello you" -n 5 --json --session kept.dms
expect '"prompt_tokens":4,"known_tokens":5' out
code 1 dilmodeli run dense.gguf -p "Hello" -n 5 --session kept.dms
one_line
expect 'another model' err
code 1 dilmodeli run moe.gguf -p "Hello" -n 5 --session kept.dms --cache q8
one_line
code 2 dilmodeli run moe.gguf -p "Hello" --cache f8
expect 'expected f32, f16 or q8' err

# a conversation: a message a line, or one with -p
code 1 dilmodeli run moe.gguf --chat -p hi
one_line
expect 'no chat template; choose one of chatml' err
code 1 dilmodeli run moe.gguf --chat-template nobody -p hi
one_line
code 2 dilmodeli run moe.gguf --chat --ids ids.txt
code 2 dilmodeli run moe.gguf --chat --json
code 0 dilmodeli run moe.gguf --chat-template deepseek2 -p hi -n 3 --json
only_json
expect '"prompt_tokens":20' out # User: hi, two newlines, Assistant:
code 0 dilmodeli run moe.gguf --chat-template deepseek2 --system "Go." -p hi -n 3 --json
expect '"prompt_tokens":25' out
talk() { printf 'one\n\ntwo\n/reset\none\n/quit\nnever\n' | dilmodeli run moe.gguf --chat-template deepseek2 --temp 0 -n 3 2>err; }
talk >out || fail "a piped conversation works"
expect '(forgotten)' err
talk | cmp -s - out || fail "and says the same twice"
printf '%0100d\n' 7 | code 0 dilmodeli run moe.gguf --chat-template plain -n 3
expect 'do not fit' err
printf 'ten bytes!\n%.0s' {1..12} | code 0 dilmodeli run moe.gguf --chat-template plain -n 3
expect 'the oldest turns are forgotten' err

code 0 dilmodeli eval moe.gguf --data text.txt --ctx 16 --json
only_json
for word in '"tokens":' '"nll":' '"perplexity":' '"bits_per_byte":' '"routing":{'; do
    expect "$word" out
done
code 0 dilmodeli eval dense.gguf --data text.txt --base moe.gguf --limit 30 --json
expect '"tokens":29' out
expect '"kl_mean":' out
expect '"top1_agreement":' out
code 0 dilmodeli eval moe.gguf --data text.txt --overlap 8 --ctx 16
expect 'perplexity' out
code 0 dilmodeli eval moe.gguf --ids ids.txt --logits logits.npy --json
expect '"tokens":5' out
head -c 6 logits.npy | tail -c 5 | grep -q NUMPY || fail "logits come in NumPy's format"

# speed: what is counted is right; how fast it is depends on the machine
code 0 dilmodeli bench moe.gguf --prompt 16 --decode 4 --rounds 2 --no-limits --json
only_json
for word in '"prefill_tps":' '"decode_tps":' '"prefill_us":{"embedding":' '"decode_us":{' '"norms":' '"projections":' \
    '"attention":' '"router":' '"experts":' '"shared_expert":' '"feed_forward":' '"output":' '"other":' '"total":' \
    '"bytes_per_token":' '"cache_bytes_per_token":' '"peak_rss_bytes":' '"memory":{"resident":' '"file":' '"repacked":' \
    '"cache":' '"scratch":' '"file_size":' '"huge":' '"routing":' '"sequences":1,"depth":16' '"experts_per_step":2.0'; do
    expect "$word" out
done
code 0 dilmodeli bench dense.gguf --prompt 0 --decode 3 --rounds 1 --no-limits --data text.txt
expect 'decode ' out
expect 'attention ' out
expect 'MiB resident: file ' out
code 0 dilmodeli bench moe.gguf --prompt 3 --depth 20 --decode 4 --sequences 3 --cache q8 --rounds 1 --no-limits --scaling \
    --threads 2 --json
only_json
for word in '"sequences":3,"depth":20' '"scaling":[{"threads":1,"prefill_tps":' '{"threads":2,"prefill_tps":'; do
    expect "$word" out
done
code 0 dilmodeli bench moe.gguf --prompt 2 --decode 1 --rounds 1 --no-limits --bind cores --huge-pages off --scaling --threads 2
expect 'MiB on huge pages' out
code 2 dilmodeli bench moe.gguf --bind moon
expect "cannot be bound to 'moon', expected auto, none or cores" err
code 2 dilmodeli eval moe.gguf --data text.txt --huge-pages maybe
expect "expects on or off, not 'maybe'" err

# where threads run changes nothing of what they compute
code 0 dilmodeli run moe.gguf -p "Hello" -n 12 --seed 5 --print-ids --bind none
cp out anywhere
code 0 dilmodeli run moe.gguf -p "Hello" -n 12 --seed 5 --print-ids --bind cores --huge-pages off
cmp out anywhere || fail "bound threads give other tokens"

# nor does which memory node's threads compute it; bench says what was done
for how in spread mirror auto; do
    code 0 dilmodeli run moe.gguf -p "Hello" -n 12 --seed 5 --print-ids --threads 3 --numa $how \
        --machine "pack:2 [numa(memory=1GiB)] core:2 pu:1"
    cmp out anywhere || fail "weights placed on nodes ($how) give other tokens"
done
code 0 dilmodeli bench moe.gguf --prompt 4 --decode 2 --rounds 1 --no-limits --threads 3 --numa spread \
    --machine "pack:2 [numa(memory=1GiB)] core:2 pu:1" --json
only_json
for word in '"numa":{"how":"spread","nodes":[{"node":-1,"threads":2,"experts":' '{"node":-1,"threads":1,"experts":' '"weight_bytes":' \
    '"own_work":' '"foreign_work":0,"pages":null}'; do
    expect "$word" out
done
code 0 dilmodeli bench moe.gguf --prompt 0 --decode 2 --rounds 1 --no-limits --threads 3 --scaling --numa mirror --ram 60% \
    --machine "pack:3 [numa(memory=1GiB)] core:2 pu:1"
expect 'mirror: node -1, 1 threads, ' out
code 0 dilmodeli bench moe.gguf --prompt 0 --decode 2 --rounds 1 --no-limits --numa off --json
expect '"numa":{"how":"off","nodes":[]}' out
code 0 dilmodeli eval moe.gguf --ids ids.txt --threads 2 --numa spread --machine "numa:2(memory=1GiB) core:2 pu:1"
code 2 dilmodeli run moe.gguf -p "Hello" --numa moon
expect "cannot be placed 'moon', expected auto, off, spread or mirror" err
code 2 dilmodeli run moe.gguf -p "Hello" --numa off --machine "numa:2 core:2 pu:1"
expect "is of no use with --numa off" err
code 1 dilmodeli run moe.gguf -p "Hello" --threads 2 --numa spread --machine "moon:2"

# a plan for a machine with two memory nodes
code 0 dilmodeli topology --plan moe.gguf --machine "numa:2(memory=1GiB) core:2 pu:1" --json
only_json
for word in '"nodes":[{"node":0,"threads":2,"memory":1073741824,' '{"node":1,"threads":2,' '"imbalance":1.0,' '"fits":true'; do
    expect "$word" out
done
code 0 dilmodeli topology --plan moe.gguf
expect 'node 0: ' out
code 1 dilmodeli topology --plan moe.gguf --machine moon
expect "'moon' describes no machine" err
code 2 dilmodeli topology --machine pu:1
code 2 dilmodeli topology moe.gguf --plan moe.gguf
code 1 dilmodeli topology --plan nowhere.gguf
code 0 dilmodeli bench moe.gguf --prompt 2 --decode 1 --rounds 1 --ids ids.txt
expect 'GB/s read' out
expect '% of the bandwidth' out
code 0 dilmodeli bench moe.gguf --prompt 2 --decode 1 --rounds 1 --scaling --threads 2 --json
for word in '"bandwidth_share":' '"arithmetic_share":' '"prefill_arithmetic_shares":{"int8":' '"int8_vector":' '"bf16":' \
    '"fp32":' '"decode_arithmetic_shares":'; do
    expect "$word" out
done

# a model that another process cuts short while it is in use
cp moe.gguf cut.gguf
coproc chat { dilmodeli run cut.gguf --chat-template plain -n 2 2>err; }
process=$chat_PID
exec {messages}>&"${chat[1]}" {answers}<&"${chat[0]}"
echo "hi" >&"$messages"
read -r -N 1 -u "$answers" _ || fail "the first message is answered"
: >cut.gguf
echo "hi again" >&"$messages"
got=0
wait "$process" || got=$?
[ "$got" = 1 ] || fail "a model that is cut short ends the program with 1, not $got"
one_line
expect 'can no longer be read' err
[ ${#program[@]} -gt 1 ] || expect 'cut.gguf: ' err # an emulator may give another address

# what goes wrong: one line and the right code
code 1 dilmodeli run nowhere.gguf -p x
one_line
expect 'nowhere.gguf' err
code 1 dilmodeli run moe.gguf -p "$(printf 'a%.0s' {1..80})"
one_line
code 1 dilmodeli run dense.gguf -p x --ctx 65
one_line
code 1 dilmodeli run moe.gguf -p x --top-p 2
one_line
echo "1 2 999999" >bad.txt
code 1 dilmodeli run moe.gguf --ids bad.txt
one_line
code 1 dilmodeli eval moe.gguf --ids bad.txt --logits bad.npy
one_line
[ ! -e bad.npy ] || fail "a failure leaves no file"
code 1 dilmodeli eval moe.gguf --data nowhere.txt
one_line
: >empty.txt
code 1 dilmodeli eval moe.gguf --data empty.txt
one_line
code 2 dilmodeli run moe.gguf -p x --ids ids.txt
code 2 dilmodeli run moe.gguf -p x -n -3
code 2 dilmodeli eval moe.gguf
code 2 dilmodeli eval moe.gguf --data text.txt --ids ids.txt
code 2 dilmodeli eval moe.gguf --data text.txt --logits x.npy
code 1 dilmodeli bench moe.gguf --prompt 0 --decode 0
one_line
code 1 dilmodeli bench moe.gguf --ids bad.txt
one_line
code 1 dilmodeli bench moe.gguf --sequences 2000
one_line
code 2 dilmodeli bench moe.gguf --rounds 0
code 2 dilmodeli bench moe.gguf --sequences 0
code 2 dilmodeli bench moe.gguf --depth -2
code 2 dilmodeli bench moe.gguf --cache f8
expect 'expected f32, f16 or q8' err
code 2 dilmodeli bench moe.gguf --ids ids.txt --data text.txt
code 0 dilmodeli bench --help
code 0 dilmodeli run --help
code 0 dilmodeli eval --help
