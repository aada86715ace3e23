#!/bin/sh
# make bench: what this machine gives, as ratios measured in one run. Prints a Markdown table; bench/attention.sh has attention's.
# Every share of the peak is against the fused multiply-add peak measured between the repetitions of the same command.
set -eu
cd "$(dirname "$0")/.."
out=build/bench
mkdir -p "$out"
threads=$(nproc)

echo "| what | measured |"
echo "| --- | --- |"

best=1000000
for i in 1 2 3; do
    from=$(date +%s%N)
    HEDDLE_CACHE=off build/heddle build models/text.lua -o "$out/text"
    took=$((($(date +%s%N) - from) / 1000000))
    [ "$took" -lt "$best" ] && best=$took
done
echo "| heddle build models/text.lua from nothing, best of 3 | $best ms |"

build/heddle build models/text.lua -o "$out/text12" -D layers=12 -D width=512 -D heads=8 -D inner=2048 -D batch=4 -D length=256 -D pattern=causal
for t in 1 "$threads"; do
    "$out/text12" bench train_step --threads "$t" --json >"$out/train.json"
    ms=$(sed -n 's/.*"total": {"ms": *\([0-9.]*\).*/\1/p' "$out/train.json")
    echo "$ms" >"$out/ms.$t"
    echo "| training step, 12 layers, width 512, batch 4 x 256, dense causal, $t threads | $ms ms, $(sed -n 's/.*"total":.*"share_of_peak": *\([0-9.]*\).*/\1/p' "$out/train.json") of the peak |"
done
[ "$threads" -eq 1 ] || echo "| $threads threads over 1 | $(awk "BEGIN { printf \"%.2f\", $(cat "$out/ms.1") / $(cat "$out/ms.$threads") }")x |"
