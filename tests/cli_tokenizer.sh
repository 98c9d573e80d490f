#!/usr/bin/env bash
# The commands tokenizer and tokenize: what they print, what they return. Usage: cli_tokenizer.sh PROGRAM [EMULATOR...]
set -euo pipefail
source "$(dirname "$0")/cli_common.sh"

mkdir text
for i in 1 2 3 4 5 6 7 8; do
    printf 'the theory of the thing, %d\nand the other one\n<|endoftext|>\n' "$i" >"text/$i.txt"
done
code 0 dilmodeli tokenizer train --data text --vocab 264 --out t.gguf
expect '264 tokens' out
code 0 dilmodeli tokenizer train --data text/1.txt text/2.txt --data text/3.txt text/4.txt text/5.txt text/6.txt text/7.txt \
    text/8.txt --vocab 264 --out again.gguf --threads 1
cmp t.gguf again.gguf || fail "the same text makes the same file"
code 0 dilmodeli tokenizer train --data text --vocab 100000 --out small.gguf --json
[ "$(wc -l <out)" = 1 ] || fail "--json prints one line"
expect '"seconds":' out
grep -q '"vocab":100000' out && fail "the text is too small for 100000 tokens"
vocab=$(sed 's/.*"vocab":\([0-9]*\).*/\1/' out)
expect "no more than" err

code 0 dilmodeli tokenize t.gguf -p "the<|endoftext|>" --special --json
only_json
expect ',263]' out
code 0 dilmodeli tokenize t.gguf -p "the<|endoftext|>" --json
grep -q ',263]' out && fail "control tokens only with --special"
code 0 dilmodeli tokenize small.gguf -p "<|endoftext|>" --special
[ "$(cat out)" = $((vocab - 1)) ] || fail "the vocabulary that was reported is the one in the file"

code 0 dilmodeli tokenize small.gguf --ids "$((vocab - 1))"
[ ! -s out ] || fail "a control token leaves no trace"
code 0 dilmodeli tokenize small.gguf --ids "$((vocab - 1))" --special
[ "$(cat out)" = "<|endoftext|>" ] || fail "with --special it shows"
code 0 dilmodeli tokenize t.gguf -p "the"
mv out first
code 0 dilmodeli tokenize t.gguf -p "the" --no-bos
cmp -s out first || fail "this vocabulary asks for no token before a text"

printf 'the theory\xff\n\t\xc3\xa7ok  g\xc3\xbczel\n\n' >any.txt
code 0 dilmodeli tokenize t.gguf --file any.txt
ids=$(cat out)
code 0 dilmodeli tokenize t.gguf --ids "$ids"
cmp out any.txt || fail "ids turn back into the same bytes"
code 0 dilmodeli tokenize t.gguf --ids "$ids" --json
only_json
expect '"text":"the theory' out
: >empty.txt
code 0 dilmodeli tokenize t.gguf --file empty.txt --json
expect '"ids":[]' out

# what goes wrong: one line, the right code, no file
code 1 dilmodeli tokenize any.txt -p a
one_line
code 1 dilmodeli tokenize t.gguf --ids "1 x"
one_line
code 1 dilmodeli tokenize t.gguf --ids "264"
one_line
expect 'outside the vocabulary of 264' err
code 1 dilmodeli tokenize t.gguf --file nowhere.txt
expect 'nowhere.txt' err
code 1 dilmodeli tokenizer train --data empty.txt --out x.gguf
one_line
code 1 dilmodeli tokenizer train --data nowhere --out x.gguf
one_line
code 2 dilmodeli tokenizer train --data text --out x.gguf --vocab 256
code 2 dilmodeli tokenizer train --data text
code 2 dilmodeli tokenizer learn --data text --out x.gguf
code 2 dilmodeli tokenize t.gguf
code 2 dilmodeli tokenize t.gguf -p a --ids 1
[ ! -e x.gguf ] || fail "nothing is written on failure"
