#!/bin/sh
# make tune: the records that ship with heddle, made on this machine, which should be quiet.
# usage: bench/tune.sh [MINUTES for a model, default 5; products take half a minute each] [DATABASE]
# The sizes that make bench measures, and the models that people start from. Stopped and started again it goes on from what is known.
set -eu
cd "$(dirname "$0")/.."
minutes=${1:-5} database=${2:-compiler/tune/shipped.txt}
tune() {
    echo "== $*"
    build/heddle tune "$@" --database "$database"
}
for size in 128,512,512 512,512,512 512,2048,512 512,512,2048 1024,3072,768 12288,512,512 64,64,64 128,128,64 197,384,384 77,513,129; do
    n=${size#*,}
    tune bench/specs/product.lua -D "m=${size%%,*}" -D "n=${n%,*}" -D "k=${n#*,}" --minutes 0.5
done
tune models/text.lua --minutes "$minutes"
for batch in 1,1024 4,256; do
    tune models/gpt2.lua -D "length=${batch#*,}" -D "positions=${batch#*,}" -D "batch=${batch%,*}" -D layers=12 -D width=512 -D heads=8 -D vocab=256 --minutes "$minutes"
done
for batch in 1,1024 4,64; do
    tune models/gpt2.lua -D "length=${batch#*,}" -D "positions=${batch#*,}" -D "batch=${batch%,*}" --minutes "$minutes"
done
tune models/enwik8.lua --minutes "$minutes"
for pattern in strided window causal; do tune models/attention.lua -D "pattern=$pattern" --minutes 1; done
