#!/bin/sh
# make bench: what this machine gives, as ratios measured in one run. Prints a Markdown table.
# Every share of the peak is against the fused multiply-add peak measured between the repetitions of the same command.
set -eu
cd "$(dirname "$0")/.."
out=build/bench
mkdir -p "$out"
threads=$(nproc)
field() { sed -n "s/.*\"$1\": *\\([0-9.]*\\).*/\\1/p" "$2" | head -1; }

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
[ "$threads" -gt 1 ] && echo "| $threads threads over 1 | $(awk "BEGIN { printf \"%.2f\", $(cat "$out/ms.1") / $(cat "$out/ms.$threads") }")x |"

# pattern, its keys, length: useful GFLOP/s count kept pairs only
attention() {
    name=$1; shift
    build/heddle build models/attention.lua -o "$out/attention" -D heads=8 -D head_dim=64 "$@"
    for entry in forward backward; do
        "$out/attention" bench $entry --threads 1 --json >"$out/attention.json"
        echo "| attention $name, $entry, 1 thread | $(sed -n 's/.*"useful_gflops": *\([0-9.]*\).*/\1/p' "$out/attention.json") useful GFLOP/s, $(sed -n 's/.*"useful_share_of_peak": *\([0-9.]*\).*/\1/p' "$out/attention.json") of the peak |"
    done
}
attention "causal, n 4,096" -D pattern=causal -D length=4096
attention "window of 256 keys, n 12,288" -D pattern=window -D window=256 -D length=12288
attention "strided 128, n 12,288" -D pattern=strided -D window=128 -D stride=128 -D length=12288
