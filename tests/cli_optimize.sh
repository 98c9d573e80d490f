#!/usr/bin/env bash
# The command optimize: the chain, what it prints, and that it goes on. Usage: cli_optimize.sh PROGRAM [EMULATOR...]
set -euo pipefail
source "$(dirname "$0")/cli_common.sh"
speeds=(--prompt 8 --decode 4 --rounds 1)

code 0 dilmodeli new m.gguf --layers 1 --dim 64 --heads 2 --experts 4 --top-k 2 --vocab 300 --seed 3
for _ in $(seq 40); do echo "Calibration reads a text."; done >text.txt
for _ in $(seq 10); do echo "What is held out is another text than that."; done >held.txt

# The same file as quantize makes; sizes and losses are those that inspect and eval tell of both.
code 0 dilmodeli optimize m.gguf o.gguf --bpw 5 --data text.txt --tokens 200 --text held.txt --ctx 64 "${speeds[@]}" --report r.json --json
only_json
cp out found
for word in '"before":{' '"after":{' '"memory_bytes":' '"latency_ms":' '"prefill_tps":' '"decode_tps":' '"advice":{"threads":' \
    '"sequences":' '"kept":null' '"top1_agreement":'; do
    expect "$word" found
done
[ "$(echo o.gguf.*)" = 'o.gguf.*' ] || fail "statistics made on the way are removed, and panels need no repacking"
code 0 dilmodeli quantize m.gguf q.gguf --bpw 5 --data text.txt --tokens 200
cmp o.gguf q.gguf || fail "optimize compresses as quantize does"
sed 's/.*"before"://' found >before
sed 's/.*"after"://' found >after
[ "$(field bytes before)" = "$(stat -c %s m.gguf)" ] || fail "bytes before"
[ "$(field bytes after)" = "$(stat -c %s o.gguf)" ] || fail "bytes after"
code 0 dilmodeli eval m.gguf --data held.txt --ctx 64 --json
same "$(field perplexity out)" "$(field perplexity before)" || fail "perplexity before"
code 0 dilmodeli eval o.gguf --data held.txt --ctx 64 --base m.gguf --json
same "$(field perplexity out)" "$(field perplexity after)" || fail "perplexity after"
same "$(field kl_mean out)" "$(field kl_mean found)" || fail "divergence"
expect '"before"' r.json
expect 'blk.0.ffn_down_exps.weight' r.json
code 0 dilmodeli report r.json --out r.html

# For people; common types are repacked where this machine's kernels want that; a limit decides on the size.
code 0 dilmodeli calibrate m.gguf --data text.txt --out s --tokens 200 --ctx 50 --slope-tokens 100
code 0 dilmodeli optimize m.gguf c.gguf --compat --max-kl 0.01 --calib s --text held.txt --limit 200 "${speeds[@]}" --threads 2
for word in 'at most 0.01' 'before' 'after' 'file' 'memory' 'latency' 'decode' 'prefill' 'perplexity' 'loss ' 'advice ' 'dilmodeli serve c.gguf'; do
    expect "$word" out
done
[ -s c.gguf.panels ] || ! dilmodeli repack c.gguf >out 2>err || fail "weights are kept"
cp s t.gguf.stats
code 0 dilmodeli optimize m.gguf t.gguf --method rtn --calib t.gguf.stats --text held.txt --limit 200 "${speeds[@]}"
[ -e t.gguf.stats ] || fail "statistics that were given stay"

# Without any text the model writes one; a calibration that is there is used, and so is one that was interrupted.
code 0 dilmodeli optimize m.gguf g.gguf --tokens 64 "${speeds[@]}" --json
expect '"text":"generated"' out
code 0 dilmodeli quantize m.gguf balanced.gguf --preset balanced --tokens 64 --method rtn
[ "$(($(stat -c %s g.gguf) - $(stat -c %s balanced.gguf)))" -lt 300 ] && [ "$(($(stat -c %s balanced.gguf) - $(stat -c %s g.gguf)))" -lt 300 ] ||
    fail "balanced is the default: $(stat -c %s g.gguf), $(stat -c %s balanced.gguf) bytes"
code 0 dilmodeli calibrate m.gguf --data text.txt --out h.gguf.stats --tokens 200 --slope-tokens 8192
code 1 dilmodeli quantize m.gguf h.gguf --bpw 0.1 --data text.txt --tokens 200
[ -e h.gguf.stats ] || fail "statistics stay for the next try"
inode=$(stat -c %i h.gguf.stats)
code 1 dilmodeli optimize m.gguf h.gguf --bpw 0.1 --data text.txt --tokens 200 --text held.txt "${speeds[@]}"
one_line
expect 'too small' err
[ "$inode" = "$(stat -c %i h.gguf.stats)" ] || fail "statistics that are there are not measured again"
[ ! -e h.gguf ] || fail "a failure leaves nothing"
code 1 dilmodeli quantize m.gguf h.gguf --bpw 0.1 --data held.txt --tokens 200
[ "$inode" != "$(stat -c %i h.gguf.stats)" ] || fail "statistics of another text are not used"

# Wrong usage, and what cannot be done.
code 2 dilmodeli optimize m.gguf
code 2 dilmodeli optimize m.gguf x.gguf --bpw 4 --preset low
code 2 dilmodeli optimize m.gguf x.gguf --max-loss 1%
expect 'need --text' err
code 2 dilmodeli optimize m.gguf x.gguf --rounds 0
code 2 dilmodeli optimize m.gguf x.gguf --prompt -3
code 2 dilmodeli optimize m.gguf x.gguf --data text.txt --calib s
code 2 dilmodeli optimize m.gguf x.gguf --huge-pages perhaps
code 1 dilmodeli optimize missing.gguf x.gguf "${speeds[@]}"
one_line
ln m.gguf also.gguf
code 1 dilmodeli optimize m.gguf also.gguf --calib s "${speeds[@]}"
one_line
expect 'two files' err
code 1 dilmodeli optimize m.gguf x.gguf --calib text.txt --text held.txt "${speeds[@]}"
one_line
code 1 dilmodeli optimize m.gguf x.gguf --calib s --text missing.txt "${speeds[@]}"
one_line
[ "$(echo x.gguf*)" = 'x.gguf*' ] || fail "a failure leaves nothing"
