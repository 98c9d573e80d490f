#!/usr/bin/env bash
# The command nash: what it prints, what it returns. Usage: cli_nash.sh PROGRAM [EMULATOR...]
set -euo pipefail
source "$(dirname "$0")/cli_common.sh"

cat >sexes.nfg <<'GAME'
NFG 1 R "Battle of the sexes" { "She" "He" }
{ { "opera" "football" } { "opera" "football" } }
{ { "both at the opera" 3, 2 } { "both at football" 2, 3 } }
1 0 0 2
GAME
code 0 dilmodeli nash sexes.nfg
for word in 'Battle of the sexes' 'all extreme equilibria: 3' 'She gets 1.2: opera (0.6), football (0.4)' \
    'He gets 3: football' 'largest regret 0 '; do
    expect "$word" out
done
code 0 dilmodeli nash sexes.nfg --all --json
only_json
for word in '"title":"Battle of the sexes"' '"name":"She","strategies":["opera","football"]' '"method":"all","found":3' \
    '"probabilities":[[0.6,0.4],[0.4,0.6]],"payoffs":[1.2,1.2],"regret":' '"pure":true' '"component":3' '"max_regret":0.0'; do
    expect "$word" out
done
code 0 dilmodeli nash sexes.nfg --pure
expect 'all pure equilibria: 2' out
code 0 dilmodeli nash - --one --json <sexes.nfg
only_json
expect '"method":"one","found":1' out

# three players without a pure equilibrium: the same seed finds the same
three='NFG 1 R "" { "" "" "" } { 2 2 2 } 1 1 0 0 1 1 0 0 0 1 0 1 1 0 1 0 0 0 0 1 1 1 1 0'
code 0 dilmodeli nash - --seed 7 --json <<<"$three"
expect '[[0.5,0.5],[0.5,0.5],[0.5,0.5]]' out
mv out first
code 0 dilmodeli nash - --seed 7 --json --threads 1 <<<"$three"
cmp first out || fail "the same seed finds the same"
code 0 dilmodeli nash - --pure <<<"$three"
expect 'all pure equilibria: 0' out
code 1 dilmodeli nash - --all <<<"$three"
one_line
expect 'all equilibria are found for 2 players' err
code 0 dilmodeli nash --help
expect 'echo ' out

# what goes wrong: one line, the right code
code 1 dilmodeli nash nowhere.nfg
one_line
expect 'nowhere.nfg' err
printf 'NFG 1 R "" { "a" } { 2 }\n1 x\n' >wrong.nfg
code 1 dilmodeli nash wrong.nfg
one_line
expect "wrong.nfg: line 2: expected a payoff, found 'x'" err
printf 'NFG 1 R "" { "a" "b" } { 2000000000 2000000000 } 1' >huge.nfg
code 1 dilmodeli nash huge.nfg
one_line
printf 'NFG 1 R "\033[2J" { "a" } { 1 } 1' >escape.nfg
code 0 dilmodeli nash escape.nfg
expect '?[2J' out
code 2 dilmodeli nash sexes.nfg --pure --all
code 2 dilmodeli nash
code 2 dilmodeli nash sexes.nfg --seed x

# a game of many players and no pure equilibrium takes a while, and stops when asked to
{
    printf 'NFG 1 R "" { '
    printf '"" %.0s' {1..17}
    printf '} { '
    printf '2 %.0s' {1..17}
    # each wants to match the next, but the last wants to differ from the first
    awk 'BEGIN { n = 17; printf "}"; for (p = 0; p < 2 ^ n; p++) { for (i = 0; i < n; i++) {
        a = int(p / 2 ^ i) % 2; b = int(p / 2 ^ ((i + 1) % n)) % 2; printf " %d", (i + 1 < n) ? a == b : a != b } } }'
} >ring.nfg
"${program[@]}" nash ring.nfg --one >out 2>err &
solver=$!
sleep 1
kill -INT $solver 2>/dev/null || true
got=0
wait $solver || got=$?
[ "$got" = 0 ] || { [ "$got" = 1 ] && one_line; } || fail "interrupted, it returned $got"
