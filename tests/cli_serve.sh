#!/usr/bin/env bash
# The command serve: its options, what it prints, how it ends. Usage: cli_serve.sh PROGRAM [EMULATOR...]
set -euo pipefail
source "$(dirname "$0")/cli_common.sh"
server=
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null; rm -rf "$folder"' EXIT

dilmodeli new model.gguf --arch qwen3moe --layers 1 --dim 32 --heads 2 --context 128 --experts 4 --top-k 2 >/dev/null

# start OPTIONS...: the server, and its port
start() {
    : >json
    "${program[@]}" serve model.gguf --port 0 --json "$@" >json 2>log &
    server=$!
    for _ in $(seq 1200); do
        [ ! -s json ] || break
        kill -0 "$server" 2>/dev/null || { cat log; fail "serve $* does not start"; }
        sleep 0.05
    done
    port=$(sed 's/.*"port":\s*//; s/[,}].*//' json)
}
# ask METHOD PATH BODY: over bash's own sockets; the answer is in the file out
ask() {
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf '%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s' \
        "$1" "$2" "${header:-}" "${#3}" "$3" >&3
    cat <&3 >out
    exec 3>&- 3<&-
}
# finish SIGNAL: it ends well
finish() {
    kill "-$1" "$server"
    got=0
    wait "$server" || got=$?
    server=
    [ "$got" = 0 ] || { cat log; fail "SIG$1 ends it with $got"; }
    expect 'stopping' log
}

start --slots 2 --ctx 64 --name small
expect 'listening on http://127.0.0.1:' log
ask GET /v1/models ''
expect '"id":"small"' out
ask POST /v1/completions '{"prompt":"Hello","max_tokens":4,"temperature":0}'
expect 'HTTP/1.1 200' out
expect '"completion_tokens":4' out
finish TERM

for options in "--router nash --gamma 0.5" "--ram 50%" "--cache q8 --reuse all --max-experts 1"; do
    # shellcheck disable=SC2086
    start $options --slots 3
    ask POST /v1/completions '{"prompt":["Hello","Hello","other"],"max_tokens":6,"seed":1,"ignore_eos":true}'
    expect '"completion_tokens":18' out
    ask GET /metrics ''
    expect 'dilmodeli_generated_tokens_total 18' out
    [[ $options != --ram* ]] || expect 'dilmodeli_expert_cache_hit_rate' out
    finish INT
done

printf 'one\ntwo\n' >keys.txt
start --api-key-file keys.txt --api-key three
ask GET /v1/models ''
expect 'HTTP/1.1 401' out
for key in one two three; do
    header="Authorization: Bearer $key"$'\r\n' ask GET /v1/models ''
    expect 'HTTP/1.1 200' out
done
finish TERM

# an answer under way is cut
start --grace 0 --slots 1
ask POST /v1/completions '{"prompt":"x","max_tokens":100,"n":100,"ignore_eos":true}' &
asking=$!
sleep 0.3
finish TERM
wait "$asking"

for wrong in "--slots 0" "--port 70000" "--ctx -1" "--reuse some" "--max-body x" "--cache x" "--timeout 0" "--grace -1" "--gamma 1" "--bind moon" "--huge-pages maybe" "--numa moon"; do
    # shellcheck disable=SC2086
    code 2 dilmodeli serve model.gguf $wrong
done
: >empty.txt
for wrong in "--api-key-file empty.txt" "--api-key-file nowhere" "--chat-template nobody" "--host 999.0.0.1" "--ctx 2000000000 --slots 256"; do
    # shellcheck disable=SC2086
    code 1 timeout 60 "${program[@]}" serve model.gguf --port 0 $wrong
    one_line
done
code 0 dilmodeli serve --help
expect '/v1/chat/completions' out
