#!/bin/sh
# make demo: compiles models/text.lua, trains it on real text, and holds it against xz on the same held-out tail.
# usage: bench/demo.sh [DATA [MINUTES]]    DATA: any file; default: the C headers that building programs put on every machine
set -eu
cd "$(dirname "$0")/.."
data=${1:-} minutes=${2:-1} out=build/demo
mkdir -p "$out"
if [ -z "$data" ]; then
    data=$out/headers.txt
    [ -s "$data" ] || find /usr/include -name '*.h' -type f -size -200k | LC_ALL=C sort | head -400 | xargs cat >"$data"
    echo "demo: no DATA given; learning to write C headers, from $(wc -c <"$data") bytes of /usr/include"
fi
[ -r "$data" ] || { echo "demo: $data cannot be read; give a text file: make demo DATA=file" >&2; exit 1; }
bytes=$(wc -c <"$data")
held=$((bytes / 10))

echo "demo: compiling models/text.lua"
build/heddle build models/text.lua -o "$out/text"
"$out/text" train --data "$data" --minutes "$minutes" --out "$out/text.safetensors"
"$out/text" eval --data "$data" --weights "$out/text.safetensors" --json >"$out/eval.json"
bits=$(sed 's/.*"bits_per_byte": *\([0-9.]*\).*/\1/' "$out/eval.json" | head -1)

# What xz needs for the tail once it has seen the rest: all minus the training part.
all=$(xz -9e --stdout "$data" | wc -c)
part=$(head -c $((bytes - held)) "$data" | xz -9e --stdout | wc -c)
awk -v b="$bits" -v x=$(((all - part) * 8)) -v n="$held" 'BEGIN { printf "\nheld-out bits per byte, the last 10 %% of the file:   heddle %.3f   xz -9e %.3f\n\n", b, x / n }'
"$out/text" sample --weights "$out/text.safetensors" --tokens 400 --slide --temperature 0.8 --seed 1
echo
