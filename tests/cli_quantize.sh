#!/usr/bin/env bash
# The command quantize: what it writes, prints and returns. Usage: cli_quantize.sh PROGRAM [EMULATOR...]
set -euo pipefail
source "$(dirname "$0")/cli_common.sh"

code 0 dilmodeli new m.gguf --layers 1 --dim 64 --heads 2 --experts 4 --top-k 2 --vocab 300 --seed 3
for _ in $(seq 40); do echo "Calibration reads a text."; done >text.txt
code 0 dilmodeli calibrate m.gguf --data text.txt --out s --tokens 200 --ctx 50 --slope-tokens 100

# Wrong usage; what cannot be done leaves nothing.
code 2 dilmodeli quantize m.gguf q.gguf --calib s
expect 'one of --preset' err
code 2 dilmodeli quantize m.gguf q.gguf --bpw 4
expect 'needs --data' err
code 2 dilmodeli quantize m.gguf q.gguf --bpw 4 --calib s --method best
code 2 dilmodeli quantize m.gguf q.gguf --preset tiny --calib s
code 1 dilmodeli quantize m.gguf q.gguf --bpw 0.01 --calib s
one_line
expect 'too small' err
code 1 dilmodeli quantize m.gguf q.gguf --size 10 --calib s
one_line
code 1 dilmodeli quantize m.gguf text.txt --bpw 4 --calib s
one_line
[ "$(echo q.gguf*)" = 'q.gguf*' ] || fail "a failure leaves nothing"

# The file keeps to its size, runs, and is the same for any number of threads.
code 0 dilmodeli quantize m.gguf q.gguf --bpw 4 --prune 0.2 --calib s --report r.json --json
only_json
for word in '"method":"game"' '"bytes_in":' '"bytes_out":' '"bpw":' '"pruned":' '"seconds":' '"error_before":' '"error_after":' \
    '"proposals":' '"moves":' '"payoff_before":'; do
    expect "$word" out
done
expect 'blk.0.ffn_down_exps.weight' r.json
code 0 dilmodeli quantize m.gguf q1.gguf --bpw 4 --prune 0.2 --calib s --threads 1
cmp q.gguf q1.gguf || fail "threads make no difference"
code 0 dilmodeli eval q.gguf --data text.txt --ctx 50 --base m.gguf --json
expect '"kl_mean"' out
code 0 dilmodeli quantize m.gguf z.gguf --size 60k --method rtn
[ "$(stat -c %s z.gguf)" -le 60000 ] || fail "the file is as small as was asked for"
code 0 dilmodeli quantize m.gguf w.gguf --width 3 --calib s --method gptq --neighbours 0
code 0 dilmodeli quantize m.gguf d.gguf --preset balanced --data text.txt --tokens 200
code 0 dilmodeli quantize m.gguf l.gguf --preset low --calib s
code 0 dilmodeli quantize m.gguf h.gguf --preset high --calib s
[ "$(stat -c %s l.gguf)" -lt "$(stat -c %s d.gguf)" ] && [ "$(stat -c %s d.gguf)" -lt "$(stat -c %s h.gguf)" ] ||
    fail "presets are low, balanced and high in that order"
code 1 dilmodeli quantize m.gguf x.gguf --bpw 4 --slopes --method rtn
one_line
expect 'no slopes' err
[ ! -e d.gguf.stats ] || fail "statistics made on the way are removed"

# Common types: other programs read them, rows of 64 take blocks of 32; the size holds, threads make no difference.
code 2 dilmodeli quantize m.gguf c.gguf --width 4 --calib s --compat
expect '--compat takes neither' err
code 1 dilmodeli quantize m.gguf c.gguf --preset low --calib s --compat # no common type of 32 weights has 2 bits
one_line
code 1 dilmodeli quantize m.gguf c.gguf --bpw 1 --calib s --compat
one_line
expect 'too small' err
code 1 dilmodeli quantize q.gguf c.gguf --bpw 6 --method rtn --compat
one_line
expect 'mixed-width' err
[ "$(echo c.gguf*)" = 'c.gguf*' ] || fail "a failure leaves nothing"
code 0 dilmodeli quantize m.gguf c.gguf --bpw 8 --calib s --compat --report r.json --json
only_json
expect '"type": "Q' r.json
code 0 dilmodeli quantize m.gguf c1.gguf --bpw 8 --calib s --compat --threads 1
cmp c.gguf c1.gguf || fail "threads make no difference"
code 0 dilmodeli eval c.gguf --data text.txt --ctx 50 --base m.gguf --json
expect '"kl_mean"' out
code 0 dilmodeli quantize m.gguf c.gguf --size 120k --method rtn --compat
[ "$(stat -c %s c.gguf)" -le 120000 ] || fail "the file is as small as was asked for"

# The smallest file within a limit: what it says of its loss is what eval says, and the bound loses more. Other files stay as they are.
below() { awk "BEGIN { exit !($1 <= $2) }"; }
kl_of() { # MODEL
    code 0 dilmodeli eval "$1" --data held.txt --base e.gguf --json
    field kl_mean out
}
for _ in $(seq 6); do echo "What is held out is another text than that."; done >held.txt
code 0 dilmodeli new e.gguf --layers 1 --dim 32 --heads 2 --experts 4 --top-k 2 --vocab 300 --seed 3
code 0 dilmodeli calibrate e.gguf --data text.txt --out t --tokens 100 --ctx 50 --slope-tokens 100
# shellcheck disable=SC2086 # options, not one word
for way in '--calib t' '--compat --method rtn'; do
    code 0 dilmodeli quantize e.gguf l.gguf --bpw 8 $way
    limit=$(kl_of l.gguf)
    rm l.gguf
    code 0 dilmodeli quantize e.gguf l.gguf --max-kl "$limit" --text held.txt $way --json --report r.json
    [ "$(wc -l <out)" = 1 ] || fail "--json prints one line"
    expect 'trial 1: ' err
    expect '"matrices"' r.json
    cp out found
    below "$(field loss found)" "$limit" || fail "the loss is within the limit"
    same "$(kl_of l.gguf)" "$(field loss found)" || fail "eval says what quantize says"
    [ "$(stat -c %s l.gguf)" = "$(field bytes_out found)" ] || fail "the file has the size that was told"
    equal=no # to one of the trials that came to its size
    for asked in $(grep -o '{"bpw_asked":[^}]*' found | grep "\"bytes\":$(field bytes_out found)," | sed 's/.*"bpw_asked":\([^,]*\),.*/\1/'); do
        code 0 dilmodeli quantize e.gguf b.gguf --bpw "$asked" $way
        ! cmp -s l.gguf b.gguf || equal=yes
    done
    [ "$equal" = yes ] || fail "the file is what quantize makes of that size"
    got=0
    dilmodeli quantize e.gguf b.gguf --bpw "$(field bound_bpw found)" $way >/dev/null 2>&1 || got=$?
    [ "$got" != 0 ] || ! below "$(kl_of b.gguf)" "$limit" || fail "the bound loses more, or no file is so small"
    rm -f b.gguf
done
code 0 dilmodeli quantize m.gguf l.gguf --max-loss 20% --text held.txt --limit 200 --ctx 32 --method rtn
expect 'at most 20%' out
expect 'perplexity' out

# A limit that nothing meets: nothing is written. A text is needed, and a limit that can be.
cp l.gguf before.gguf
code 1 dilmodeli quantize m.gguf l.gguf --max-kl 0 --text held.txt --limit 100 --method rtn
expect 'even at' err
cmp l.gguf before.gguf || fail "where no size is within, what is there stays"
rm l.gguf
code 1 dilmodeli quantize m.gguf l.gguf --max-loss 1% --text missing.txt --method rtn
one_line
printf a >short.txt
code 1 dilmodeli quantize m.gguf l.gguf --max-loss 1% --text short.txt --limit 0 --method rtn --calib held.txt
code 2 dilmodeli quantize m.gguf l.gguf --max-loss 1% --calib s
expect 'need --text' err
code 2 dilmodeli quantize m.gguf l.gguf --bpw 4 --text held.txt --calib s
code 2 dilmodeli quantize m.gguf l.gguf --max-loss 1% --bpw 4 --text held.txt --calib s
for limit in -1% 100% nan% inf one 1%% ''; do
    code 2 dilmodeli quantize m.gguf l.gguf --max-loss "$limit" --text held.txt --calib s
done
for limit in -1 nan inf 1% ''; do
    code 2 dilmodeli quantize m.gguf l.gguf --max-kl "$limit" --text held.txt --calib s
done
[ "$(echo l.gguf*)" = 'l.gguf*' ] || fail "a failure leaves nothing"

# Interrupted between trials, it leaves nothing.
for _ in $(seq 60); do echo "What is held out is another text than that."; done >long.txt
"${program[@]}" quantize m.gguf l.gguf --max-kl 0.001 --text long.txt --method rtn >out 2>err &
job=$!
for _ in $(seq 400); do
    grep -q 'trial 1' err && break
    sleep 0.02
done
kill -INT "$job" 2>/dev/null || true
got=0
wait "$job" || got=$?
if [ "$got" = 0 ]; then echo "over before the signal came"; else expect 'interrupted' err; fi
[ "$got" = 0 ] || [ "$(echo l.gguf*)" = 'l.gguf*' ] || fail "an interruption leaves nothing"
