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
[ ! -e d.gguf.stats ] || fail "statistics made on the way are removed"

# Common types: other programs read them, rows of 64 take blocks of 32; the size holds, threads make no difference.
code 2 dilmodeli quantize m.gguf c.gguf --width 4 --calib s --compat
expect 'expects --bpw or --size' err
code 2 dilmodeli quantize m.gguf c.gguf --preset low --calib s --compat
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
