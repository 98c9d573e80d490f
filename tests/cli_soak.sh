#!/usr/bin/env bash
# Many chats of changing messages with memory for a part of the experts: the text of the same chats without a limit, no error.
# `bench/streaming.py --only soak` does that for as long as one likes, and looks at memory. Usage: cli_soak.sh PROGRAM [EMULATOR...]
set -euo pipefail
source "$(dirname "$0")/cli_common.sh"

printf 'A text to learn from: the cat, the hat, the bat and the rat sat on the mat, and that was that.\n%.0s' 1 2 3 4 5 6 >text.txt
dilmodeli tokenizer train --data text.txt --vocab 270 --out tokenizer.gguf >/dev/null 2>&1
dilmodeli new model.gguf --arch qwen3moe --layers 2 --dim 32 --heads 4 --kv-heads 2 --context 96 --experts 8 --top-k 2 \
    --tokenizer tokenizer.gguf >/dev/null
for i in {1..60}; do
    echo "the $((i * 37 % 101)) cats and the $((i * 53 % 89)) rats"
    [ $((i % 3)) != 0 ] || echo /reset
done >chats

# chats FLAGS...: what is said, and what is not about the limits of the model itself
chats() {
    dilmodeli run model.gguf --chat --chat-template plain -n 6 --seed 5 "$@" <chats 2>said
    grep -vE '^\(forgotten\)|^The model has no chat template|^\(the context is full' said >&2 || true
}
chats >expected 2>err
[ ! -s err ] || { cat err; fail "an error without a limit"; }
[ "$(wc -l <expected)" -ge 60 ] || fail "expected an answer to each message"
for memory in "--ram 25% --evict lru" "--ram 40% --prefetch 2"; do
    # shellcheck disable=SC2086
    chats $memory >out 2>err
    [ ! -s err ] || { cat err; fail "an error with $memory"; }
    cmp expected out || fail "another text with $memory"
done
