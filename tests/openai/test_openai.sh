#!/usr/bin/env bash
# Starts the server and asks it with OpenAI's own client, see client.mjs.
# usage: test_openai.sh PROGRAM SOURCE_FOLDER; 77 where Node.js or the package is missing.
set -euo pipefail
program=$1 source=$2
if ! command -v node >/dev/null; then
    echo "skipped: Node.js is not installed"
    exit 77
fi
if [ ! -d "$source/tests/openai/node_modules/openai" ]; then
    echo "skipped: OpenAI's client is not installed; run 'make peer'"
    exit 77
fi
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$folder"' EXIT
cat "$source"/docs/*.md >"$folder/text.txt"
"$program" tokenizer train --data "$folder/text.txt" --vocab 600 --out "$folder/tokenizer.gguf" --json >/dev/null
"$program" new "$folder/model.gguf" --layers 2 --dim 64 --heads 4 --kv-heads 2 --experts 8 --top-k 2 --expert-dim 48 \
    --context 2048 --tokenizer "$folder/tokenizer.gguf" --json >/dev/null

# asked TEMPLATE [TEST...]: a server whose model knows functions in this way answers as it should.
asked() {
    rm -f "$folder/out"
    "$program" serve "$folder/model.gguf" --port 0 --chat-template "$1" --api-key secret --json >"$folder/out" 2>"$folder/err" &
    server=$!
    shift
    for _ in $(seq 200); do
        [ ! -s "$folder/out" ] || break
        sleep 0.05
    done
    port=$(sed 's/.*"port":\s*//; s/[,}].*//' "$folder/out")
    node "$source/tests/openai/client.mjs" "$port" secret model "$@"
    kill -TERM "$server"
    status=0
    wait "$server" || status=$?
    server=
    [ "$status" = 0 ] || { cat "$folder/err"; echo "FAILED: the server ends with $status"; exit 1; }
}

asked chatml-tools
asked qwen3-coder tools
asked mistral-v13-tekken tools
