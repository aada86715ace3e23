# What the scripts of make bench share: sourced from the checkout's root, with $out set to a folder for what is left behind.

commas() { echo "$1" | sed -e :a -e 's/\([0-9]\)\([0-9]\{3\}\)\($\|,\)/\1,\2\3/' -e ta; }
compute() { awk "BEGIN { printf \"$1\", $2 }"; }
share() { compute "%.1f %%" "100 * $1"; }
# The value below which a share of a file's numbers lie: quantile 0.5 FILE
quantile() { sort -g "$2" | awk -v q="$1" '{ x[NR] = $1 } END { if (!NR) exit; at = 1 + q * (NR - 1); i = int(at); print x[i] + (at - i) * (x[i < NR ? i + 1 : i] - x[i]) }'; }
median() { quantile 0.5 "$1"; }
# A number of PROGRAM bench --json, the first of its name; of its total: total ms FILE
number() { grep -o "\"$1\": *[0-9.e+-]*" "$2" | head -1 | sed 's/.*: *//'; }
total() { sed -n 's/.*"total": {[^}]*"'"$1"'": *\([0-9.e+-]*\).*/\1/p' "$2"; }

# ---- programs that answer a line with a line: start SLOT LOG COMMAND..., ask SLOT WORD, stop SLOT; slots 1 to 3 ----

# Sets $ready to what followed "ready". Returns 1 if the program ended before; its log says why.
start() {
    slot=$1
    log=$2
    shift 2
    rm -f "$out/ask$slot" "$out/answer$slot"
    mkfifo "$out/ask$slot" "$out/answer$slot"
    # without the pipes of the other programs, which would never end while this one holds them
    (exec 3>&- 4<&- 5>&- 6<&- 7>&- 8<&-; "$@") <"$out/ask$slot" >"$out/answer$slot" 2>"$log" &
    eval "exec $((2 * slot + 1))>\"\$out/ask$slot\" $((2 * slot + 2))<\"\$out/answer$slot\" && process$slot=\$!"
    rm -f "$out/ask$slot" "$out/answer$slot"
    eval "read -r ready <&$((2 * slot + 2))" || { stop "$slot"; return 1; }
    ready=$(echo "$ready" | cut -f2-)
    echo "ready $ready" >>"$log"
}
# Sets $answer. What it started may still spin for some milliseconds: the next one begins after them.
ask() {
    eval "echo \"\$2\" >&$((2 * $1 + 1)); read -r answer <&$((2 * $1 + 2))" || { echo "bench: a program stopped; its log in $out says why" >&2; exit 1; }
    sleep 0.05
}
stop() { eval "exec $((2 * $1 + 1))>&- $((2 * $1 + 2))<&-; wait \$process$1" || true; }

# ---- PyTorch ----

python=${PYTHON:-/usr/bin/python3}
# What makes it fast: an OpenBLAS that shares its OpenMP threads, memory kept between calls instead of mapped anew, its widest vectors.
# usage: torch THREADS SCRIPT WORD...
torch() {
    torch_threads=$1
    shift
    env OMP_NUM_THREADS="$torch_threads" OPENBLAS_NUM_THREADS="$torch_threads" ATEN_CPU_CAPABILITY="$(grep -q -m1 avx512 /proc/cpuinfo && echo avx512 || echo default)" \
        LD_LIBRARY_PATH="$(ls -d /usr/lib/*/openblas-openmp 2>/dev/null | head -1)" \
        MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456 GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
        "$python" "$@"
}
# Sets $torch_version, empty without PyTorch.
find_torch() {
    torch_version=$(torch 1 bench/attention_torch.py version 2>/dev/null) || {
        torch_version=
        echo "bench: $python has no PyTorch (Debian: apt-get install python3-torch libopenblas0-openmp): it is left out" >&2
    }
    case $torch_version in
    *libblas*) case $torch_version in *openblas* | *mkl* | *blis*) ;; *) echo "bench: PyTorch uses the reference BLAS, which is tens of times slower: apt-get install libopenblas0-openmp" >&2 ;; esac ;;
    esac
}
