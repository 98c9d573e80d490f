#!/bin/sh
# The server's page and the report in a real browser, see page.mjs.
# usage: test_page.sh PROGRAM SOURCE_FOLDER [PICTURES_FOLDER]; 77 where Chromium, the package or the model is missing.
set -eu
program=$1 source=$2 pictures=${3:-}
model=$source/../shared/models/ref-moe.gguf
skip() {
    echo "skipped: $1"
    exit 77
}
command -v node >/dev/null || skip "Node.js is not installed"
[ -x /usr/bin/chromium ] || skip "Chromium is not installed"
[ -d "$source/tests/page/node_modules/playwright-core" ] || skip "playwright-core is not installed; run 'make peer'"
[ -r "$model" ] || skip "there is no $model"
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
"$program" report "$model" --out "$folder/report.html" >/dev/null
port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })')
# Fresh weights hardly ever end an answer, and so many are slow enough that there is one to stop on a busy machine too.
"$program" new "$folder/fresh.gguf" --arch qwen3moe --layers 12 --dim 512 --experts 16 --top-k 8 --expert-dim 512 --heads 8 \
    --context 8192 --vocab 8192 --tokenizer "$model" --type q8_0 >/dev/null
"$program" serve "$folder/fresh.gguf" --ctx 8192 --port "$port" >"$folder/log" 2>&1 &
server=$!
tries=0
until node -e "fetch('http://127.0.0.1:$port/health').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"; do
    tries=$((tries + 1))
    if [ $tries -gt 50 ] || ! kill -0 "$server"; then
        cat "$folder/log"
        exit 1
    fi
    sleep 0.1
done
node "$source/tests/page/page.mjs" "http://127.0.0.1:$port/" "$folder/report.html" "$pictures"
