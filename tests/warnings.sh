#!/bin/sh
# Every model of models/, and a checkpoint of every family in GOLDEN (../shared/golden), emitted small and compiled by each compiler
# there is, at each target and optimisation level: no warning. Takes an hour; the test emit_test compiles a few.
#     tests/warnings.sh [FOLDER] [LEVELS]
cd "$(dirname "$0")/.." || exit 1
out=${1:-build/warnings} levels=${2:-0 1 2 3} golden=${GOLDEN:-../shared/golden}
mkdir -p "$out"
emit() {
    name=$1 && shift
    build/heddle emit "$@" -o "$out/$name" || echo "$name: not emitted"
}
for target in x86-64-v4 x86-64; do
    emit text_$target models/text.lua -D length=48 -D layers=2 -D width=24 -D heads=2 -D inner=40 -D vocab=61 -D stride=5 -D window=7 -D batch=2 -D dropout=0.1 --target $target
    emit gpt2_$target models/gpt2.lua -D length=33 -D positions=40 -D layers=2 -D width=24 -D heads=3 -D vocab=67 -D batch=2 --target $target
    emit enwik8_$target models/enwik8.lua -D length=50 -D layers=2 -D width=24 -D heads=4 -D inner=40 -D qk_width=24 -D vocab=31 -D chunk=8 -D summary=2 -D batch=2 --target $target
    emit cifar10_$target models/cifar10.lua -D length=100 -D layers=2 -D width=16 -D heads=2 -D inner=24 -D qk_width=8 -D vocab=30 -D stride=9 --target $target
    emit music_$target models/music.lua -D length=64 -D layers=2 -D width=16 -D heads=2 -D vocab=30 -D chunks=4 --target $target
    emit imagenet64_$target models/imagenet64.lua -D length=48 -D layers=2 -D width=16 -D heads=2 -D vocab=30 --target $target
    for pattern in causal full window stride strided fixed longformer bigbird natten; do
        emit attention_${pattern}_$target models/attention.lua -D pattern=$pattern -D length=96 -D heads=2 -D head_dim=16 --target $target
    done
    for config in "$golden"/*/config.json; do
        family=$(basename "$(dirname "$config")")
        grep -q "model_type" "$config" && emit hf_${family}_$target "$(dirname "$config")" -D length=64 --target $target
    done
done 2>"$out/not_emitted"
wrong=0
for cc in gcc-12 clang-14 clang-22 gcc clang; do
    command -v $cc >/dev/null || continue
    for level in $levels; do
        for folder in "$out"/*/; do
            for file in "$folder"*.c; do
                flags=$(sed -n 's/^FLAGS *= *//p' "$folder/Makefile")
                said=$($cc -std=c11 -Wall -Wextra -Wpedantic -Werror -O$level $flags -c -o "$out/object.o" "$file" 2>&1)
                [ -z "$said" ] || { echo "$cc -O$level $file"; echo "$said" | head -3; wrong=$((wrong + 1)); }
            done
        done
    done
done
echo "$wrong files with warnings"
[ $wrong = 0 ]
