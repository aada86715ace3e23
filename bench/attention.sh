#!/bin/sh
# Attention by pattern: our share of this machine's FMA peak, and PyTorch's time beside ours, as Markdown tables.
# usage: bench/attention.sh [quick] [ROW...]     quick: 3 rounds instead of 7; rows of seconds a call have 3, the longest lengths 1
#   causal window strided fixed longformer bigbird natten graph    a pattern, forward and backward, 1 thread, PyTorch beside it
#   dense      causal at the length of window, strided and fixed: what these save (minutes; run by quick only if named)
#   savings    strided against our own dense causal kernel
#   lengths    strided, stride about sqrt(length), 1 head: time per kept pair from 16,384 to 1,048,576
#   threads    2 threads over 1
# environment: PYTHON (default /usr/bin/python3) with PyTorch, whose columns stay empty without it; CORA: folder with edges.tsv
# of the Cora citation graph (default ../shared/data/cora beside the checkout), without which the row graph is left out.
#
# Every round measures A, then B, then A again ..., so that what else the machine does meets both; numbers are medians of the
# rounds. Shares count kept pairs only, against the peak measured between the calls. bench/attention_torch.py says what
# PyTorch runs; what it chose, and all times, are left in build/bench/attention.
set -eu
cd "$(dirname "$0")/.."
out=build/bench/attention
. bench/common.sh
cora=${CORA:-../shared/data/cora}
rounds=7 known="causal window strided fixed longformer bigbird natten graph dense savings lengths threads" rows=
for word; do
    case " quick $known " in
    *" $word "*) if [ "$word" = quick ]; then rounds=3; else rows="$rows $word"; fi ;;
    *) echo "bench/attention.sh: no row \"$word\"; there are: quick $known" >&2; exit 1 ;;
    esac
done
[ -n "$rows" ] || { rows=$known; [ "$rounds" = 7 ] || rows=$(echo "$known" | sed 's/dense //'); }
mkdir -p "$out"
cp models/attention.lua "$out/spec.lua"
find_torch

spec() { build/heddle build "$out/spec.lua" -o "$out/$1" $2; }        # program, -D options
kept_pairs() { "$out/$1" info --json | sed 's/.*"patterns": *\[.*"kept_pairs": *\([0-9]*\).*/\1/'; }

# One measurement of ours, appended: program, entry, threads, seconds -> FILE.ms, FILE.share
ours() {
    "$out/$1" bench "$2" --json --threads "$3" --seconds "$4" >"$out/now.json" 2>/dev/null
    total ms "$out/now.json" >>"$5.ms"
    total useful_share_of_peak "$out/now.json" >>"$5.share"
}

torch_start() {                       # name, row, length, edges
    start 1 "$out/$1.log" torch 1 bench/attention_torch.py serve "$2" "$3" $4 || { echo "bench/attention.sh: PyTorch stopped; $out/$1.log ends:" >&2; tail -5 "$out/$1.log" >&2; exit 1; }
    ran="$ran
- $1: $(echo "$ready" | cut -f1 | sed 's/^/forward /'), $(echo "$ready" | cut -f2 | sed 's/^/backward /')"
}
torch_ask() { ask 1 "$1"; echo "$answer" >>"$2"; }

# name, title, PyTorch's row or -, length, asked shares forward and backward, asked times faster than PyTorch, edges, -D options
pattern() {
    name=$1 title=$2 row=$3 length=$4 asked=$7 edges=$8 options=$9
    eval "asked_forward='$5' asked_backward='$6'"
    spec "$name" "-D length=$length $options"
    [ -n "$torch_version" ] || row=-
    rm -f "$out/$name".forward.* "$out/$name".backward.*
    [ "$row" = - ] || torch_start "$name" "$row" "$length" "$edges"
    i=0
    while [ $i -lt $rounds ]; do
        for entry in forward backward; do
            ours "$name" $entry 1 0.7 "$out/$name.$entry"
            [ "$row" = - ] || torch_ask $entry "$out/$name.$entry.torch"
        done
        i=$((i + 1))
    done
    [ "$row" = - ] || stop 1
    pairs=$(commas "$(kept_pairs "$name")")
    for entry in forward backward; do
        eval "wanted=\$asked_$entry"
        ms=$(median "$out/$name.$entry.ms") theirs="| "
        if [ "$row" != - ]; then
            theirs=$(median "$out/$name.$entry.torch")
            theirs="$(compute %.1f "$theirs") | $(compute %.2f "$theirs / $ms")x"
        fi
        echo "| $title, $(commas "$length") | $pairs | $entry | $wanted | $(share "$(median "$out/$name.$entry.share")") | $(compute %.2f "$ms") | $theirs | $asked |"
    done
}

heading= ran=
table() {                             # prints the heading of the table of patterns once
    [ -n "$heading" ] && return
    heading=1
    echo "| pattern, length | kept pairs of a head | | asked | share of the peak | ms | PyTorch, ms | PyTorch over ours | asked |"
    echo "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
}

all=$rounds
for row in $rows; do
    rounds=$all
    case $row in dense | savings) rounds=3 ;; esac          # seconds a call, of which a measurement of ours takes the median of seven
    case $row in
    savings | lengths | threads) ;;
    graph)
        [ -r "$cora/edges.tsv" ] || { echo "bench/attention.sh: no $cora/edges.tsv: row graph left out (CORA=folder names another)" >&2; continue; }
        cp "$cora/edges.tsv" "$out/edges.tsv"
        table ;;
    *) table ;;
    esac
    case $row in
    causal)     pattern causal "causal" causal 4096 "75 %" "62 %" "" "" "-D pattern=causal" ;;
    window)     pattern window "window of 256 keys" window 12288 "65 %" "55 %" "2x" "" "-D pattern=window -D window=256" ;;
    strided)    pattern strided "strided 128" strided 12288 "55 %" "46 %" "3x" "" "-D pattern=strided -D stride=128" ;;
    fixed)      pattern fixed "fixed 128, summary 32" fixed 12288 "66 %" "55 %" "1.5x" "" "-D pattern=fixed -D stride=128 -D summary=32" ;;
    longformer) pattern longformer "longformer, 256 each side, 16 tokens" longformer 8192 "62 %" "52 %" "" "" "-D pattern=longformer -D window=256 -D tokens=16" ;;
    bigbird)    pattern bigbird "bigbird, blocks of 64" bigbird 8192 "66 %" "55 %" "" "" "-D pattern=bigbird -D block=64 -D random=3" ;;
    natten)     pattern natten "natten 7 x 7 on 64 x 64, head_dim 32" natten 4096 "24 %" "17 %" "" "" "-D pattern=natten -D chunk=64 -D kernel=7 -D head_dim=32" ;;
    graph)      pattern graph "Cora, both ways and self" graph 2708 "" "" "4x" "$out/edges.tsv" "-D pattern=edges -D file=edges.tsv" ;;
    dense)      pattern dense "causal" causal 12288 "" "" "" "" "-D pattern=causal" ;;
    savings)
        spec strided "-D length=12288 -D pattern=strided -D stride=128"
        spec dense "-D length=12288 -D pattern=causal"
        rm -f "$out"/savings.*
        i=0
        while [ $i -lt $rounds ]; do
            for entry in forward backward; do
                ours strided $entry 1 0.7 "$out/savings.strided.$entry"
                ours dense $entry 1 0.7 "$out/savings.dense.$entry"
            done
            i=$((i + 1))
        done
        fewer=$(compute %.1f "$(kept_pairs dense) / $(kept_pairs strided)")
        printf '\n| strided 128 against our own dense causal, 12,288: %sx fewer pairs | ms | dense, ms | less time | asked |\n| --- | --- | --- | --- | --- |\n' "$fewer"
        for entry in forward backward; do
            a=$(median "$out/savings.strided.$entry.ms") b=$(median "$out/savings.dense.$entry.ms")
            echo "| $entry | $(compute %.2f "$a") | $(compute %.1f "$b") | $(compute %.1f "$b / $a")x | 25x |"
        done ;;
    lengths)
        cases="16384:128 32768:181 65536:256 131072:362 262144:512 524288:724 1048576:1024"
        rm -f "$out"/lengths.*
        for case in $cases; do spec "lengths-${case%:*}" "-D heads=1 -D pattern=strided -D length=${case%:*} -D stride=${case#*:}"; done
        i=0
        while [ $i -lt $rounds ]; do
            for case in $cases; do
                [ "${case%:*}" -le 131072 ] || [ $i -eq 0 ] || continue      # long ones take minutes
                for entry in forward backward; do ours "lengths-${case%:*}" $entry 1 0.4 "$out/lengths.$entry.${case%:*}"; done
            done
            i=$((i + 1))
        done
        printf '\n| strided, 1 head: length, stride | kept pairs | forward, ns a pair | times the fastest | share | backward | times the fastest | share | asked |\n'
        echo "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
        for case in $cases; do
            n=${case%:*} pairs=$(kept_pairs "lengths-${case%:*}")
            echo "$n ${case#*:} $pairs $(median "$out/lengths.forward.$n.ms") $(median "$out/lengths.forward.$n.share") $(median "$out/lengths.backward.$n.ms") $(median "$out/lengths.backward.$n.share")"
        done | awk '{ line[NR] = $0; f = $4 / $3; b = $6 / $3; if (NR == 1 || f < least) least = f; if (NR == 1 || b < least_b) least_b = b }
            END { for (i = 1; i <= NR; i++) { split(line[i], x); f = x[4] / x[3]; b = x[6] / x[3]
                printf "| %d, %d | %d | %.3f | %.2f | %.1f %% | %.3f | %.2f | %.1f %% | 1.25 |\n", x[1], x[2], x[3], 1e6 * f, f / least, 100 * x[5], 1e6 * b, b / least_b, 100 * x[7] } }' ;;
    threads)
        if [ "$(nproc)" -lt 2 ]; then echo "bench/attention.sh: one processor: row threads left out" >&2; continue; fi
        printf '\n| 2 threads over 1 | forward | backward | asked |\n| --- | --- | --- | --- |\n'
        for case in "causal:4096:1.85:" "window:12288:1.85:-D window=256" "strided:12288:1.75:-D stride=128" "fixed:12288:1.85:-D stride=128"; do
            name=${case%%:*} rest=${case#*:}
            length=${rest%%:*} rest=${rest#*:}
            spec "$name" "-D length=$length -D pattern=$name ${rest#*:}"
            rm -f "$out/threads.$name".*
            i=0
            while [ $i -lt $rounds ]; do
                for entry in forward backward; do
                    ours "$name" $entry 1 0.7 "$out/threads.$name.$entry.1"
                    ours "$name" $entry 2 0.7 "$out/threads.$name.$entry.2"
                done
                i=$((i + 1))
            done
            over() { compute %.2fx "$(median "$out/threads.$name.$1.1.ms") / $(median "$out/threads.$name.$1.2.ms")"; }
            echo "| $name, $(commas "$length") | $(over forward) | $(over backward) | ${rest%%:*}x |"
        done ;;
    esac
done
printf '\n%s rounds; load average %s' "$all" "$(cut -d' ' -f1-3 /proc/loadavg)"
[ -z "$torch_version" ] || printf '; %s' "$torch_version"
printf '\n'
[ -z "$ran" ] || printf '\nPyTorch, the fastest of what bench/attention_torch.py tried:%s\n' "$ran"
