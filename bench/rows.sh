#!/bin/sh
# The kernels around the products on arrays beyond the last cache, each against copying (or reading) such arrays in the same run:
#   bench/rows.sh [THREADS...]     a Markdown table; default: 1 and all processors
# A kernel's bytes are those it must move; the share is of `copies`, of `reads` for kernels that write little. ELEMENTS=N: floats of
# the large tensors (32 Mi); SECONDS_EACH=X: time for each entry.
set -eu
cd "$(dirname "$0")/.."
out=build/bench
mkdir -p "$out"
elements=${ELEMENTS:-33554432}
build/heddle build bench/specs/rows.lua -o "$out/rows" -D elements="$elements"
build/heddle build bench/specs/update.lua -o "$out/update" -D vocab=$((elements / 1024))

# PROGRAM ENTRY THREADS: a line for each kernel of the entry's own kinds that takes more than a twentieth of its time.
shares() {
    "$1" bench "$2" --threads "$3" --seconds "${SECONDS_EACH:-2}" --json | tr ',{}' '\n\n\n' | awk -v threads="$3" '
        { gsub(/[" ]/, ""); split($0, pair, ":") }
        pair[1] == "read_gbs" && !reads { reads = pair[2] }
        pair[1] == "copy_gbs" && !copies { copies = pair[2] }
        pair[1] == "kernel" { kernel[++count] = pair[2] }
        pair[1] == "ms" && count { if (!(count in ms)) ms[count] = pair[2] }
        pair[1] == "share" { share[count] = pair[2] }
        pair[1] == "gbs" { gbs[count] = pair[2] }
        END {
            for (k = 1; k <= count; k++) {
                if (share[k] < 0.05 || kernel[k] !~ /_(norm|softmax|cross_entropy|map_gelu|map_mul_gelu|map_add|embedding|optimiser|reduce|few_rows)_/) continue
                reading = kernel[k] ~ /few_rows|partials|reduce|cross_entropy_[0-9]/
                printf "| %s | %d | %.2f | %.2f | %.0f %% of %s |\n", kernel[k], threads, ms[k], gbs[k], 100 * gbs[k] / (reading ? reads : copies), reading ? "reads" : "copies"
            }
        }'
}

[ $# -gt 0 ] || set -- 1 "$(nproc)"
echo "| kernel | threads | ms | GB/s | share |"
echo "| --- | --- | --- | --- | --- |"
for threads; do
    for entry in layer_norm layer_norm_sum rms_norm layer_norm_backward rms_norm_backward softmax softmax_backward cross_entropy_backward gelu_erf gelu_erf_backward gelu_tanh \
                 gelu_tanh_backward add bias_gradient embedding embedding_backward one_row one_row_in_out few_rows few_rows_in_out; do
        shares "$out/rows" "$entry" "$threads"
    done
    shares "$out/update" train_step "$threads"
done
