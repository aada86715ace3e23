#!/bin/sh
# make bench: what this machine gives, beside the libraries that its users would take, alternating in one run.
# usage: bench/bench.sh [quick] [ROW...]      quick: fewer rounds and variants, no models of seconds a call, by itself no memory or attention
#   products    one product, weights packed, beside oneDNN, OpenBLAS and BLIS (bench/products.c says how they are set up)
#   row         one row times a matrix beyond the last cache, against the read bandwidth
#   memory      kernels around the products on arrays beyond the last cache, against the copy bandwidth
#   forward     whole models, beside PyTorch (bench/model_torch.py) and ONNX Runtime (bench/model_onnx.js)
#   training    training steps, beside PyTorch
#   decode      a token of 1 and 8 streams after 128 others, beside PyTorch, against the read bandwidth
#   enwik8      a training step of models/enwik8.lua, counting necessary arithmetic alone
#   compile     heddle build from nothing
#   attention   bench/attention.sh, whose rows may be named as well (make bench without rows runs it with fewer rounds)
#   models      forward training enwik8
# environment: THREADS (default "1 2"); CC; PYTHON (default /usr/bin/python3) with PyTorch; HEDDLE_FLAGS: for every heddle build of
# products and models
#
# What is missing is installed where that is possible (Debian packages; ONNX Runtime's npm package under build/bench), else left
# out with a message. Rows are printed when they are done; at the end build/bench/results.md and results.svg have them all.
# Shares are medians over rounds, each against the peak measured in the same round; quartiles show how quiet the machine was. One
# thread is timed by the processor time that it takes, several by the clock: those numbers need a machine without other work.
set -eu
cd "$(dirname "$0")/.."
out=build/bench
. bench/common.sh
rounds=5 quick= rows= attention= all="products row memory forward training decode enwik8 compile attention"
for word; do
    case " quick models $all " in
    *" $word "*)
        case $word in
        quick) quick=quick rounds=3 ;;
        models) rows="$rows forward training enwik8" ;;
        *) rows="$rows $word" ;;
        esac ;;
    *) attention="$attention $word" ;;              # attention.sh knows its rows, and says so
    esac
done
[ -z "$attention" ] || rows="$rows attention"
if [ -z "$rows" ]; then
    if [ -n "$quick" ]; then rows="products row forward training compile"; else rows=$all attention=quick; fi
elif [ -n "$quick" ]; then attention="quick $attention"; fi
wants() { for row in $rows; do [ "$row" != "$1" ] || return 0; done; return 1; }
counts=${THREADS:-$([ "$(nproc)" -ge 2 ] && echo 1 2 || echo 1)}
case " $counts " in *[!\ 12]*) echo "bench/bench.sh: THREADS=\"$counts\": 1, 2 or both" >&2; exit 1 ;; esac
CC=${CC:-$(for v in $(seq 40 -1 14); do command -v "clang-$v" && break; done || command -v clang || echo gcc)}
mkdir -p "$out/rows" "$out/products" "$out/models"
rm -f "$out"/rows/*
done=100

# ---- results: begin SECTION WHAT THREADS UNIT ASKED ASKED-OF-PEERS; one NAME MS SHARE LOW HIGH OVER RAN; end_row ----

begin() {
    done=$((done + 1)) file=$out/rows/$done.tsv
    [ "$1" = "${section:-}" ] && new= || new=1
    section=$1
    printf 'row\t%s\t%s\t%s\t%s\t%s\t%s\n' "$@" >"$file.part"
}
one() { printf 'one\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$@" >>"$file.part"; }
end_row() {
    mv "$file.part" "$file"
    [ -z "$new" ] || printf '\n%s\n\n' "$section"
    awk -f bench/report.awk -v form=row -v new="$new" "$file"
}
skip() { echo "bench: $1" >&2; }

# ---- what other libraries need ----

install() { for package; do dpkg -s "$package" >/dev/null 2>&1 || ./setup "$package" || true; done; }

find_onnx() {
    onnx=$out/node/node_modules
    [ -d "$onnx/onnxruntime-node" ] && return
    command -v npm >/dev/null 2>&1 || install npm
    mkdir -p "$out/node"
    echo '{ "private": true }' >"$out/node/package.json"
    # Its script would fetch libraries of other devices; what CPUs need is in the package.
    (cd "$out/node" && npm install --ignore-scripts --no-audit --no-fund onnxruntime-node) >"$out/node/log" 2>&1 && return
    onnx=
    skip "npm install onnxruntime-node fails ($out/node/log): ONNX Runtime is left out"
}

# ---- products ----

product() {                               # SECTION M N K; asked of 1 thread, of its peers, of 2 threads, of their peers
    name=$2x$3x$4 folder=$out/products/$2x$3x$4
    # shellcheck disable=SC2086
    build/heddle emit bench/specs/product.lua -o "$folder" -D m="$2" -D n="$3" -D k="$4" ${HEDDLE_FLAGS:-}
    make -s -C "$folder" CC="$CC"
    "$CC" -std=c11 -D_GNU_SOURCE= -O2 -Wall -Wextra -Wpedantic -Wshadow -DSIZE_M="$2" -DSIZE_N="$3" -DSIZE_K="$4" -I"$folder" -Iruntime/app \
        -o "$folder/products" bench/products.c "$folder/libproduct.a" build/lib/libheddle_app.a -ldl -lm -lpthread
    for t in $counts; do
        [ "$t" = 1 ] && asked=$5 of_peers=$6 || asked=$7 of_peers=$8
        "$folder/products" "$t" "$rounds" 0.05 >"$folder/$t.tsv"
        [ "$2" = 1 ] && unit=bandwidth || unit=peak
        begin "$1" "($(commas "$2"), $(commas "$3"), $(commas "$4"))" "$t" "$unit" "$asked" "$of_peers"
        sed 's/^/one\t/' "$folder/$t.tsv" >>"$file.part"
        end_row
        for library in oneDNN OpenBLAS BLIS; do
            grep -q "^$library" "$folder/$t.tsv" && continue
            case $told in *"$library"*) ;; *) told="$told $library" && skip "$library is not here (Debian: libdnnl-dev, libopenblas0-openmp, libblis-dev): left out" ;; esac
        done
    done
}

products() {
    title="Products y[M][N] = x[M][K] W, weights packed: (M, N, K)"
    for size in "128 512 512" "512 512 512" "512 2048 512" "512 512 2048" "1024 3072 768" "12288 512 512"; do
        # shellcheck disable=SC2086
        product "$title" $size 0.96 "oneDNN 0.99" 0.93 "BLIS 1 OpenBLAS 1"
    done
    product "$title" 64 64 64 0.93 "" "" ""
    product "$title" 128 128 64 0.95 "" "" ""
    product "$title" 197 384 384 0.92 "" "" ""
    product "$title" 77 513 129 0.85 "" "" ""
}

# ---- kernels bound by memory ----

# Copying by stores that pass the caches is the faster way on many machines: the better one counts.
bandwidth() {
    [ "$1" = read ] && { number read_gbs "$out/now.json"; return; }
    { number copy_gbs "$out/now.json"; number copy_past_gbs "$out/now.json"; } | sort -g | tail -1
}

# WHAT PROGRAM ENTRY KERNELS ASKED copy|read: the kernels whose names match, and which bandwidth their bytes are held against
kernel() {
    [ -z "$quick" ] || [ -n "$5" ] || return 0
    for t in $counts; do
        "$2" bench "$3" --json --threads "$t" --seconds 1 >"$out/now.json"
        set -- "$@" $(sed 's/{"kernel": /\n&/g' "$out/now.json" | awk -v bandwidth="$(bandwidth "$6")" -v kernel="$4" '
            function value(key, x) { split($0, x, "\"" key "\": "); return x[2] + 0 }
            /^{"kernel"/ && $2 ~ kernel { ms += value("ms"); moved += value("ms") * value("gbs") }
            END { if (ms && bandwidth) print ms, moved / ms / bandwidth }')
        [ $# -eq 8 ] || { skip "entry $3 of $2 has no kernel $4, or $6_gbs is not measured: left out"; return 0; }
        begin "Kernels bound by memory: bytes that must move, against the bandwidth of copying or, where little is written, reading" "$1" "$t" bandwidth "$5" ""
        one heddle "$7" "$8" "" "" 1 ""
        end_row
        set -- "$1" "$2" "$3" "$4" "$5" "$6"
    done
}

memory() {
    build/heddle build bench/specs/rows.lua -o "$out/memory-rows"
    build/heddle build bench/specs/update.lua -o "$out/memory-update"
    while read -r entry kernels bandwidth asked; do
        kernel "$(echo "$entry" | tr _ ' ')" "$out/memory-rows" "$entry" "_($kernels)_" "$asked" "$bandwidth"
    done <<-END
	layer_norm              norm                copy 0.85
	layer_norm_sum          norm|map_add        copy
	layer_norm_backward     norm                copy 0.85
	rms_norm                norm                copy
	rms_norm_backward       norm                copy
	softmax                 softmax             copy 0.85
	softmax_backward        softmax             copy 0.85
	cross_entropy           cross_entropy       read 0.85
	cross_entropy_backward  cross_entropy       copy 0.85
	gelu_erf                map_gelu            copy 0.85
	gelu_erf_backward       map_mul_gelu        copy 0.85
	gelu_tanh               map_gelu            copy 0.85
	gelu_tanh_backward      map_mul_gelu        copy 0.85
	add                     map_add             copy
	bias_gradient           reduce              read
	embedding               embedding           copy
	embedding_backward      embedding           copy
	few_rows                few_rows|product    read
	few_rows_in_out         few_rows|product    read
	END
    kernel "AdamW" "$out/memory-update" train_step "_optimiser_" 0.85 copy
}

# ---- whole models: GPT-2's network in sizes of our choice ----

# SECTION WHAT forward|train LENGTH BATCH LAYERS WIDTH HEADS VOCAB; asked of 1 thread, of 2 threads
model() {
    title=$2 entry=$3 asked_1=${10} asked_2=${11} folder=$out/models/$3-$7-$9
    sizes="length=$4 batch=$5 layers=$6 width=$7 heads=$8 vocab=$9"
    mkdir -p "$folder"
    # shellcheck disable=SC2086
    build/heddle build models/gpt2.lua -o "$folder/ours" -D length="$4" -D positions="$4" -D batch="$5" -D layers="$6" -D width="$7" -D heads="$8" -D vocab="$9" ${HEDDLE_FLAGS:-}
    if [ -n "$torch_version" ]; then
        # the same weights and tokens must give the same logits everywhere, or the comparison means nothing
        torch "$(nproc)" bench/model_torch.py export "$folder" $sizes >"$folder/export.log" 2>&1 || { skip "$title: PyTorch cannot export it ($folder/export.log): left out"; return 0; }
        "$folder/ours" run forward --in "$folder/tokens.safetensors" --weights "$folder/weights.safetensors" --out "$folder/ours.safetensors"
        torch 1 bench/model_torch.py compare "$folder/logits.safetensors" "$folder/ours.safetensors" >>"$folder/export.log"
    fi
    for t in $counts; do
        ours=$entry contenders="1:heddle"
        [ "$entry" = forward ] || ours=train_step
        start 1 "$folder/ours.$t.log" "$folder/ours" bench "$ours" --each --threads "$t" || { skip "$folder/ours stopped: $(tail -1 "$folder/ours.$t.log")"; return; }
        flops=$ready
        if [ -n "$torch_version" ]; then
            if start 2 "$folder/torch.$t.log" torch "$t" bench/model_torch.py serve "$entry" $quick $sizes threads="$t"; then contenders="$contenders 2:PyTorch" ran_2=$ready
            else skip "PyTorch stopped: $(tail -1 "$folder/torch.$t.log")"; fi
            if [ "$entry" = forward ] && [ -n "$onnx" ]; then
                if NODE_PATH=$onnx start 3 "$folder/onnx.$t.log" node bench/model_onnx.js "$folder" "$t"; then contenders="$contenders 3:ONNX_Runtime" ran_3=$ready
                else skip "ONNX Runtime stopped: $(tail -1 "$folder/onnx.$t.log")"; fi
            fi
        fi
        rm -f "$folder"/now.*
        i=0
        while [ $i -lt $rounds ]; do
            for contender in $contenders; do
                ask "${contender%%:*}" "$ours"
                case $contender in
                1:*) ms=$(echo "$answer" | cut -f1) peak=$(echo "$answer" | cut -f2) theirs=$ms ;;
                *) theirs=$answer ;;
                esac
                echo "$theirs" >>"$folder/now.${contender%%:*}.ms"
                compute '%.6f\n' "$flops / $theirs / 1e6 / $peak" >>"$folder/now.${contender%%:*}.share"
                compute '%.6f\n' "$theirs / $ms" >>"$folder/now.${contender%%:*}.over"
            done
            i=$((i + 1))
        done
        eval "asked=\$asked_$t"
        peers=$(echo "$contenders" | sed 's/1:heddle//; s/[23]:\([^ ]*\)/\1 1/g; s/^ *//')
        begin "$1" "$title" "$t" peak "$asked" "$(echo "$peers" | sed 's/ONNX_Runtime/ONNX-Runtime/')"
        for contender in $contenders; do
            i=${contender%%:*}
            stop "$i"
            eval "ran=\${ran_$i:-}"
            f=$folder/now.$i
            one "$(echo "${contender#*:}" | tr _ -)" "$(median "$f.ms")" "$(median "$f.share")" "$(quantile 0.25 "$f.share")" "$(quantile 0.75 "$f.share")" "$(median "$f.over")" "$ran"
        done
        end_row
    done
    rm -f "$folder"/*.safetensors "$folder"/*.onnx
}

forward() {
    model "Forward" "12 layers, width 512, n 1,024, bytes" forward 1024 1 12 512 8 256 0.87 0.84
    [ -n "$quick" ] || model "Forward" "GPT-2 124M, n 1,024" forward 1024 1 12 768 12 50257 0.87 0.84
}

training() {
    model "Training step" "12 layers, width 512, batch 4 x 256" train 256 4 12 512 8 256 0.84 0.80
    [ -n "$quick" ] || model "Training step" "GPT-2 124M, batch 4 x 64" train 64 4 12 768 12 50257 0.80 0.76
}

# Bytes of a step: all weights but the rows of `wpe` that it does not look up, and the keys and values of 128 positions.
decode() {
    for streams in 1 8; do
        folder=$out/models/decode-$streams
        mkdir -p "$folder"
        # shellcheck disable=SC2086
        build/heddle build models/gpt2.lua -o "$folder/ours" -D streams=$streams ${HEDDLE_FLAGS:-}
        bytes=$((4 * (124439808 - (1024 - streams) * 768) + streams * 12 * 2 * 4 * 768 * 128))
        for t in $counts; do
            contenders="1:heddle" ran_2=
            start 1 "$folder/ours.$t.log" "$folder/ours" bench step --each --threads "$t" || { skip "$folder/ours stopped: $(tail -1 "$folder/ours.$t.log")"; return; }
            if [ -n "$torch_version" ]; then
                if start 2 "$folder/torch.$t.log" torch "$t" bench/model_torch.py serve decode length=1 batch=$streams context=128 threads="$t"; then contenders="$contenders 2:PyTorch" ran_2=$ready
                else skip "PyTorch stopped: $(tail -1 "$folder/torch.$t.log")"; fi
            fi
            rm -f "$folder"/now.*
            i=0
            while [ $i -lt $rounds ]; do
                for contender in $contenders; do
                    j=${contender%%:*}
                    ask "$j" step
                    theirs=$(echo "$answer" | cut -f1)
                    [ "$j" != 1 ] || { ms=$theirs read_gbs=$(echo "$answer" | cut -f3); }
                    echo "$theirs" >>"$folder/now.$j.ms"
                    compute '%.6f\n' "$bytes / $theirs / 1e6 / $read_gbs" >>"$folder/now.$j.share"
                    compute '%.6f\n' "$theirs / $ms" >>"$folder/now.$j.over"
                done
                i=$((i + 1))
            done
            ms=$(median "$folder/now.1.ms")
            if [ $streams = 1 ]; then
                asked=0.92 what="1 stream"
                eval "single_$t=$ms"
            else
                eval "single=\$single_$t"
                asked='' what="$streams streams: $(compute '%.1f' "$streams * $single / $ms") times the tokens a second"
            fi
            begin "Decoding: GPT-2 124M, a token of each stream after 128, against the bandwidth of reading" "$what" "$t" bandwidth "$asked" "PyTorch 1"
            for contender in $contenders; do
                j=${contender%%:*} f=$folder/now.${contender%%:*}
                stop "$j"
                eval "ran=\${ran_$j:-}"
                one "${contender#*:}" "$(median "$f.ms")" "$(median "$f.share")" "$(quantile 0.25 "$f.share")" "$(quantile 0.75 "$f.share")" "$(median "$f.over")" "$ran"
            done
            end_row
        done
    done
}

enwik8() {
    [ -z "$quick" ] || { skip "enwik8 takes minutes: left out by quick"; return; }
    # necessary: what a step without recomputation does
    flops=$(build/heddle info models/enwik8.lua -D recompute=false --json | sed 's/.*"train_step"[^}]*"flops": \([0-9]*\).*/\1/')
    for case in "true:everything recomputed but attention outputs:0.56" "false:nothing recomputed:0.64"; do
        recompute=${case%%:*} case=${case#*:}
        build/heddle build models/enwik8.lua -o "$out/enwik8" -D recompute="$recompute"
        t=${counts##* }
        start 1 "$out/enwik8.log" "$out/enwik8" bench train_step --each --threads "$t" || { skip "enwik8, ${case%:*}: $(tail -1 "$out/enwik8.log")"; continue; }
        rm -f "$out"/now.*
        for i in 1 2 3; do
            ask 1 train_step
            echo "$answer" | cut -f1 >>"$out/now.ms"
            compute '%.6f\n' "$flops / $(echo "$answer" | cut -f1) / 1e6 / $(echo "$answer" | cut -f2)" >>"$out/now.share"
        done
        stop 1
        begin "Training step" "enwik8, n 12,288, ${case%:*}" "$t" peak "${case#*:}" ""
        one heddle "$(median "$out/now.ms")" "$(median "$out/now.share")" "$(quantile 0.25 "$out/now.share")" "$(quantile 0.75 "$out/now.share")" 1 ""
        end_row
    done
}

# ---- compile time ----

compile_time() {                          # WHAT SECONDS -D...
    what=$1 limit=$2 best=
    shift 2
    for i in 1 2 3; do
        from=$(date +%s%N)
        HEDDLE_CACHE=off build/heddle build models/text.lua -o "$out/text" "$@"
        took=$((($(date +%s%N) - from) / 1000000))
        [ -n "$best" ] && [ "$took" -ge "$best" ] || best=$took
    done
    begin "heddle build from nothing, best of 3" "$what" "$(nproc)" s "$limit" ""
    one heddle "$best" "" "" "" 1 ""
    end_row
}
compile() {
    compile_time "models/text.lua" 2
    compile_time "12 layers, width 512, n 256" 3 -D layers=12 -D width=512 -D heads=8 -D inner=2048 -D batch=4 -D length=256 -D pattern=causal
}

# ---- all of it ----

told=
if wants products || wants row; then install libopenblas0-openmp libblis-dev libdnnl-dev; fi
if wants forward || wants training || wants decode; then
    install python3-torch libopenblas0-openmp
    find_torch
    onnx=
    ! wants forward || find_onnx
fi
for row in $rows; do
    case $row in
    row) product "One row times a matrix beyond the last cache, against the bandwidth of reading" 1 16384 4096 0.95 "" 0.95 "" ;;
    attention) ;;
    *) "$row" ;;
    esac
done
{
    echo "# make bench"
    echo
    echo "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) processors; $rounds rounds; load average at the end $(cut -d' ' -f1-3 /proc/loadavg), which should be near the number of threads in use"
    for f in "$out"/rows/*.tsv; do [ -e "$f" ] && awk -f bench/report.awk -v form=table "$out"/rows/*.tsv; break; done
} >"$out/results.md"
for f in "$out"/rows/*.tsv; do [ -e "$f" ] && awk -f bench/report.awk -v form=chart "$out"/rows/*.tsv >"$out/results.svg"; break; done
if wants attention; then
    echo
    # shellcheck disable=SC2086
    bench/attention.sh $attention | tee "$out/attention.md"
    { printf '\n## Attention\n\n'; cat "$out/attention.md"; } >>"$out/results.md"
fi
printf '\n%s/results.md and %s/results.svg have all of it\n' "$out" "$out"
