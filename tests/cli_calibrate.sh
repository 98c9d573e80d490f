#!/usr/bin/env bash
# The command calibrate: what it writes, prints and returns. Usage: cli_calibrate.sh PROGRAM [EMULATOR...]
set -euo pipefail
source "$(dirname "$0")/cli_common.sh"

code 0 dilmodeli new m.gguf --layers 1 --dim 32 --heads 2 --experts 4 --top-k 2 --vocab 300 --seed 3
code 0 dilmodeli new other.gguf --layers 1 --dim 32 --heads 2 --experts 4 --top-k 2 --vocab 300 --seed 4
for _ in $(seq 40); do echo "Calibration reads a text."; done >text.txt

code 2 dilmodeli calibrate m.gguf --out s
expect '--generate N' err
code 2 dilmodeli calibrate m.gguf --data text.txt
expect '--out' err
code 2 dilmodeli calibrate m.gguf --data text.txt --out s --slopes often
code 1 dilmodeli calibrate m.gguf --data missing.txt --out s
one_line

code 0 dilmodeli calibrate m.gguf --data text.txt --out s --tokens 200 --ctx 50 --slopes auto --slope-tokens 100 --imatrix i.dat --json
only_json
for word in '"tokens":200' '"slope_tokens":100' '"windows":4' '"passes":1' '"slopes":"scaled"' '"path":"s"'; do
    expect "$word" out
done
expect 'blk.0.ffn_down_exps.weight' i.dat
[ "$(echo s.part-*)" = 's.part-*' ] || fail "no parts are left"
code 0 dilmodeli calibrate m.gguf --data text.txt --out t --tokens 200 --ctx 50 --slopes auto --slope-tokens 100 --memory 9k
cmp s t || fail "how often the text is read makes no difference"

# A text of its own; a part of something else is not used.
cp s g.part-0000
code 0 dilmodeli calibrate m.gguf --generate 60 --tokens 60 --ctx 20 --out g --slopes measured
expect 'measured' out
expect 'starting over' err
code 0 dilmodeli calibrate other.gguf --generate 60 --tokens 60 --ctx 20 --out h --slopes none
