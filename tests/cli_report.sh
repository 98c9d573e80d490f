#!/usr/bin/env bash
# The command report: what it writes, what it returns. Usage: cli_report.sh PROGRAM [EMULATOR...]
set -euo pipefail
source "$(dirname "$0")/cli_common.sh"

code 0 dilmodeli new 'a<b>&"model.gguf' --arch qwen3moe --layers 2 --dim 32 --heads 4 --experts 8 --top-k 2 --expert-dim 32 --context 64
seq 1 40 >text.txt
code 0 dilmodeli report 'a<b>&"model.gguf' --data text.txt --tokens 24 --out page.html --svg pictures --json
only_json
expect '"path":"page.html","svg":"pictures","charts":' out
files=(pictures/*.svg)
charts=${#files[@]}
expect "\"charts\":$charts," out
[ "$(grep -c '<figure' page.html)" = "$charts" ] || fail "every chart has a file"
expect 'a&lt;b&gt;&amp;&quot;model.gguf' page.html
if command -v xmllint >/dev/null; then
    xmllint --noout page.html pictures/*.svg || fail "pages and pictures are XML"
fi

# without a text; beside the model
code 0 dilmodeli report 'a<b>&"model.gguf'
expect 'charts are in a<b>&"model.gguf.html' out
expect 'because there was no text to run over' 'a<b>&"model.gguf.html'

# a dense model whose context is shorter than the text, and than a bench
code 0 dilmodeli new dense.gguf --arch gpt2 --layers 1 --dim 32 --heads 4 --context 48
code 0 dilmodeli report dense.gguf --data text.txt --out dense.html
expect 'a prompt of 48 tokens' dense.html

# the pictures alone
code 0 dilmodeli report 'a<b>&"model.gguf' --svg alone
[ -f alone/bits.svg ] || fail "--svg writes pictures"
pages=(./*.html)
[ "${#pages[@]}" = 3 ] || fail "--svg alone writes no page"

# a run's folder
mkdir run
printf '{"step":1,"loss":3}\n{"step":2,"loss":2}\n{"st' >run/metrics.jsonl
code 0 dilmodeli report run
[ -f run/report.html ] || fail "a run's report lies in its folder"
expect 'the last one, which is only begun' run/report.html

code 2 dilmodeli report
code 2 dilmodeli report run --tokens 1
code 2 dilmodeli report run --beta -1
code 2 dilmodeli report run --beta 0 --gamma 0
code 1 dilmodeli report nothing
one_line
code 1 dilmodeli report run --data missing
one_line
code 1 dilmodeli report run --data text.txt
one_line
code 1 dilmodeli report run --out no/such/folder/page.html
one_line
code 0 dilmodeli report --help
expect 'dilmodeli report run --data valid.txt' out
