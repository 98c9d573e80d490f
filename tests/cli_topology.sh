#!/usr/bin/env bash
# The command topology: what it prints, what it keeps, what it returns. Usage: cli_topology.sh PROGRAM [EMULATOR...]
set -euo pipefail
source "$(dirname "$0")/cli_common.sh"
export XDG_CACHE_HOME=$folder/cache
kept=$XDG_CACHE_HOME/dilmodeli/topology.json

start=$SECONDS
code 0 dilmodeli topology --json
only_json
echo "measured in $((SECONDS - start)) s"
for word in '"tiers":[{"name":' '"name":"RAM"' '"bandwidth_gb_s":{"one_thread":' '"all_threads":' '"latency_ns":' '"shared_by":' \
    '"numa":[' '"disk":{"path":' '"direct":' '"huge_pages":{"enabled":' '"isa":"' '"memory":{"total":' '"usable":' \
    '"measured":true' "\"kept\":\"$kept\""; do
    expect "$word" out
done
[ -s "$kept" ] || fail "the figures are kept"
[ "$(find "$folder/cache" -type f | wc -l)" = 1 ] || fail "nothing else is left in the cache folder"
sed 's/"measured":true/"measured":false/; s/"memory":{[^}]*}//' out >first

# the second time what is kept is shown, as text too
code 0 dilmodeli topology --json
expect '"measured":false' out
sed 's/"memory":{[^}]*}//' out | cmp - first || fail "the figures kept are those that were measured"
code 0 dilmodeli topology
for word in 'processor ' 'isa ' 'RAM ' 'numa ' 'memory ' 'huge pages ' 'disk ' 'refresh measures again' "kept in $kept"; do
    expect "$word" out
done
if grep -v "$folder" out | grep -qE '.{81}'; then
    fail "the text fits into 80 columns"
fi

# the disk below a model, by reads of an expert's size
dilmodeli new model.gguf --layers 1 --dim 32 --heads 2 --kv-heads 1 --experts 2 --top-k 1 --expert-dim 128 --context 64 >out
code 0 dilmodeli topology model.gguf --json
expect '"path":"model.gguf"' out
expect '"read_bytes":49152' out # 3 matrices of 32 x 128 floats
expect '"measured":true' out
code 0 dilmodeli topology model.gguf --json
expect '"measured":false' out

# another machine than this one, which hwloc is told to see: what was kept is of no use
export HWLOC_SYNTHETIC='Package:2 [NUMANode(memory=8GiB)] L2Cache:2(size=1MiB) L1dCache:1(size=32KiB) Core:1 PU:2'
code 0 dilmodeli topology --json
expect '"measured":true' out
expect '"packages":2,"cores":4,"threads":8' out
expect '"numa":[{"node":0,"bytes":8589934592,"threads":4},{"node":1,' out
expect '"name":"L1","bytes":32768,"shared_by":2,"count":4' out
if grep -q '"name":"L3"' out; then
    fail "a machine without L3 has none"
fi

# nor is a file that is damaged; or what --refresh asks for again
sed -i 's/"latency_ns": /"latency_ns": -/' "$kept"
code 0 dilmodeli topology --json
only_json
expect '"measured":true' out
code 0 dilmodeli topology --json
expect '"measured":false' out
code 0 dilmodeli topology --refresh --json
expect '"measured":true' out

# without a place for figures it measures all the same, and says so
code 0 env -u XDG_CACHE_HOME -u HOME "${program[@]}" topology --json
expect '"kept":null,"note":"the figures are not kept: there is no cache folder"' out
expect 'HOME is not set' out
code 0 env XDG_CACHE_HOME=/proc/nowhere "${program[@]}" topology
expect 'the figures are not kept: /proc/nowhere' out
expect 'not measured: /proc/nowhere' out

# what goes wrong: one line, the right code
code 1 dilmodeli topology nowhere.gguf
one_line
expect 'nowhere.gguf: No such file' err
echo text >text
code 1 dilmodeli topology text
one_line
expect 'text: ' err
code 2 dilmodeli topology a b
code 2 dilmodeli topology --refresh=yes
code 0 dilmodeli topology --help
expect 'dilmodeli topology model.gguf --json' out

# it stops when asked to
"${program[@]}" topology --refresh >out 2>err &
measuring=$!
sleep 0.5
kill -INT $measuring 2>/dev/null || true
got=0
wait $measuring || got=$?
[ "$got" = 0 ] || { [ "$got" = 1 ] && one_line; } || fail "interrupted, it returned $got"
