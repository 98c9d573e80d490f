#!/usr/bin/env bash
# The commands train and gradcheck: what they print, what they return. Usage: cli_train.sh PROGRAM [EMULATOR...]
set -euo pipefail
source "$(dirname "$0")/cli_common.sh"
export OMP_WAIT_POLICY=passive # short runs, perhaps beside other tests

mkdir text
for i in {1..40}; do
    printf 'Document %d tells of the sea.\nIt ends here, after %d words.\n' "$i" $((i * 7)) >"text/$i.txt"
done
cat >small.txt <<'END'
# a run that takes a moment
layers = 1
dim = 32
heads = 2
kv-heads = 1
experts = 4
top-k = 2
expert-dim = 16
vocab = 300
context = 32
batch = 2
steps = 7 # the command line says otherwise
sample-tokens = 8
END
train=(dilmodeli train --config small.txt --data text/1.txt text --out "run one" --steps 6)

code 0 "${train[@]}" --valid-every 2 --sample-every 3 --json
[ "$(wc -l <out)" = 1 ] || fail "--json prints one line"
for word in '"steps":6' '"tokens":384' '"loss":' '"val_loss":' '"val_bpb":' '"tokens_per_s":' '"maxvio":' '"interrupted":false' \
    '"out":"run one"'; do
    expect "$word" out
done
expect 'step 6/6' err
expect '--- sample at step 3 ---' err
grep -q $'\033' err && fail "no escape sequences where there is no terminal"
for file in config.txt metrics.jsonl model.gguf tokenizer.gguf; do
    [ -s "run one/$file" ] || fail "run one/$file was written"
done
for line in 'steps = 6' 'data = "text/1.txt"' 'data = "text"' 'out = "run one"' 'seed = 1'; do
    expect "$line" "run one/config.txt"
done
[ "$(grep -c '"loss"' "run one/metrics.jsonl")" = 6 ] || fail "a line for every step"
code 0 dilmodeli run "run one/model.gguf" -p Document -n 4 --temp 0

# again it changes nothing; with more steps, or its own record as configuration, it goes on
cp "run one/metrics.jsonl" before
code 0 "${train[@]}" --valid-every 2 --sample-every 3 --json
cmp -s before "run one/metrics.jsonl" || fail "a run that is done records nothing"
code 0 dilmodeli train --config "run one/config.txt" --steps 8
expect '8 steps, 512 tokens' out
expect 'resuming run one after step 6' err
code 1 "${train[@]}" --seed 2
one_line_at_end() { tail -1 err | grep -q '^dilmodeli: ' || { cat err; fail "the last line says what failed"; }; }
one_line_at_end
expect '--seed 1' err

# free experts, all in sight, are the model's own choice: the same run; and a game that costs something tells of itself
figures() { sed 's/,"sweeps".*//; s/,"tokens_per_s".*//' "$1/metrics.jsonl"; }
code 0 dilmodeli train --config small.txt --data text --out chosen --balance none
code 0 dilmodeli train --config small.txt --data text --out played --balance none --router nash --beta 0 --flock 4
[ "$(figures chosen)" = "$(figures played)" ] || fail "a game without costs trains as the model's choice does"
code 0 dilmodeli train --config small.txt --data text --out game --router nash --theta 0.5 --nash-loss 0.02 --swarm-reward 0.03
for word in '"sweeps":' '"max_regret":' '"potential_gain":' '"experts_per_token":1.' '"router_s":' '"nash_loss":' '"swarm_reward":'; do
    expect "$word" game/metrics.jsonl
done

# Ctrl-C: a message, and the same command goes on. Not through the function, whose shell would get the signal.
long=("${program[@]}" train --config small.txt --data text --out long --steps 20000 --valid-every 0 --sample-every 0
    --save-every 0)
"${long[@]}" --json >out 2>err &
child=$!
until [ -s long/metrics.jsonl ]; do sleep 0.05; done
kill -INT $child
got=0
wait $child || got=$?
[ $got = 1 ] || fail "an interrupted run returned $got"
expect '"interrupted":true' out
expect 'the same command goes on from there' err
steps=$(grep -c '"loss"' long/metrics.jsonl)
code 0 dilmodeli train --config small.txt --data text --out long --steps $((steps + 2)) --save-every 0
expect "resuming long after step $steps" err

# wrong usage
wrong() {
    expected=$1
    shift
    code 2 dilmodeli train "$@"
    expect "$expected" err
}
wrong '--out:' --data text
wrong '--data:' --out x
wrong '--lr:' --data text --out x --lr fast
wrong '--top-k: 9 is more than experts = 4' --config small.txt --data text --out x --top-k 9
wrong '--precision:' --data text --out x --precision f64
wrong 'unknown option' --data text --out x --layer 3
wrong 'needs a value' --out
code 1 dilmodeli train --config nowhere.txt --data text --out x
one_line
printf 'layers = 2\nlyers = 3\n' >bad.txt
code 1 dilmodeli train --config bad.txt --data text --out x
one_line
expect "bad.txt: line 2: there is no option 'lyers'; did you mean 'layers'?" err
code 1 dilmodeli train --data nowhere --out x
one_line_at_end
expect 'nowhere' err
code 0 dilmodeli train --help
expect '--weight-decay VALUE' out
expect '[0.002]' out

# gradcheck
seq 3 3 60 >ids.txt
code 0 dilmodeli gradcheck "run one/model.gguf" --ids ids.txt --aux 0.01 --json
only_json
for word in '"loss":' '"cross_entropy":' '"aux_loss":' '"max_relative_error":' '"tensors":[{"name":"' '"relative_error":'; do
    expect "$word" out
done
code 0 dilmodeli gradcheck "run one/model.gguf" --ids ids.txt --precision bf16
expect 'token_embd.weight' out
code 2 dilmodeli gradcheck "run one/model.gguf"
expect '--ids' err
code 1 dilmodeli gradcheck "run one/model.gguf" --ids ids.txt --ref "run one/model.gguf" --precision f64
one_line
code 1 dilmodeli gradcheck nowhere.gguf --ids ids.txt
one_line
