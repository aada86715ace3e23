#!/bin/sh
# Every model of models/ with every pattern, and a checkpoint of every family in GOLDEN (../shared/golden), emitted small and compiled as C11
# by each compiler there is: no warning; and headers read as C++17. Minutes for one level, an hour for all; emit_test compiles a few.
#     tests/warnings.sh [FOLDER [LEVELS [TARGETS [COMPILERS]]]]
cd "$(dirname "$0")/.." || exit 1
out=${1:-build/warnings} levels=${2:-0 1 2 3} targets=${3:-x86-64-v4 x86-64-v3 x86-64} compilers=${4:-gcc-12 gcc clang-14 clang-22 clang} golden=${GOLDEN:-../shared/golden}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
compile() {      # one folder by one compiler at one level
    cd "$1" || exit
    flags=$(sed -n 's/^FLAGS = //p' Makefile)
    for file in *.c; do
        said=$($2 -std=c11 -Wall -Wextra -Wpedantic -O$3 $flags -c -o "$2$3.o" "$file" 2>&1)
        [ -z "$said" ] || { echo "$2 -O$3 $1/$file"; echo "$said" | head -3; }
    done
    rm -f "$2$3.o"
    case $2 in gcc*) cxx=g++${2#gcc} ;; *) cxx=clang++${2#clang} ;; esac
    for header in $(sed -n 's/^HEADERS = //p' Makefile); do
        command -v "$cxx" >/dev/null && echo "#include \"$header\"" | $cxx -x c++ -std=c++17 -Wall -Wextra -Wpedantic -fsyntax-only - 2>&1
    done
}
if [ "$5" ]; then compile "$5" "$4" "$2"; exit; fi
emit() {
    name=$1 && shift
    "${HEDDLE:-build/heddle}" emit "$@" -o "$out/$name" 2>"$out/said" || sed "s/^/not emitted: /" "$out/said"
}
for target in $targets; do
    t="--target $target"
    emit text_$target models/text.lua -D length=48 -D layers=2 -D width=24 -D heads=2 -D inner=40 -D vocab=61 -D stride=5 -D window=7 -D batch=2 -D dropout=0.1 $t
    emit gpt2_$target models/gpt2.lua -D length=33 -D positions=40 -D layers=2 -D width=24 -D heads=3 -D vocab=67 -D batch=2 $t
    emit enwik8_$target models/enwik8.lua -D length=50 -D layers=2 -D width=24 -D heads=4 -D inner=40 -D qk_width=24 -D vocab=31 -D chunk=8 -D summary=2 -D batch=2 $t
    emit cifar10_$target models/cifar10.lua -D length=100 -D layers=2 -D width=16 -D heads=2 -D inner=24 -D qk_width=8 -D vocab=30 -D stride=9 $t
    emit music_$target models/music.lua -D length=64 -D layers=2 -D width=16 -D heads=2 -D vocab=30 -D chunks=4 $t
    emit imagenet64_$target models/imagenet64.lua -D length=48 -D layers=2 -D width=16 -D heads=2 -D qk_width=16 -D inner=24 -D vocab=30 -D stride=8 $t
    for pattern in causal full window both stride strided fixed fixed_same chunk previous_chunk prefix sinks longformer dilated phi3 jukebox bigbird documents axial natten swin grid squares; do
        emit attention_${pattern}_$target models/attention.lua -D pattern=$pattern -D length=96 -D heads=2 -D head_dim=16 -D chunk=12 -D stride=8 -D window=9 -D block=8 -D local_blocks=2 -D kernel=3 -D summary=2 $t
    done
    emit attention_extras_$target models/attention.lua -D pattern=causal -D length=70 -D heads=4 -D kv_heads=2 -D head_dim=20 -D softcap=3 -D sinks=true -D key_bias=true -D max_distance=9 -D lengths=true $t
    for config in "$golden"/*/config.json; do
        folder=$(dirname "$config")
        grep -qE '"model_type": "(bloom|gemma2|gemma3_text|gpt2|gpt_neo|gpt_neox|gpt_oss|imagegpt|llama|mistral|opt|phi3|qwen2|qwen3|starcoder2)"' "$config" && emit hf_$(basename "$folder")_$target "$folder" -D length=64 $t
    done
done
for cc in $compilers; do
    command -v $cc >/dev/null || continue
    for level in $levels; do ls -d "$out"/*/ | xargs -r -P 2 -n 1 "$0" "$out" $level none $cc; done
done >"$out/warnings"
cat "$out/warnings"
echo "$(ls -d "$out"/*/ | wc -l) models: $(grep -c ' -O. ' "$out/warnings") files with warnings"
[ ! -s "$out/warnings" ]
