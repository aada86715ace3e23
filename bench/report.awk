# What bench/bench.sh measured, as Markdown or as a chart.      awk -f bench/report.awk -v form=row|table|chart FILE...
# Each file holds one row: lines of words separated by tabs,
#   row    SECTION  WHAT  THREADS  UNIT  ASKED SHARE  ASKED OF PEERS      UNIT: peak, bandwidth (shares of it), or s (seconds at most);
#                                                                         ASKED OF PEERS: "oneDNN 0.99 BLIS 1": least time of theirs over ours
#   one    NAME  MILLISECONDS  SHARE  LOW  HIGH  TIME OVER OURS  WHAT RAN      the first is ours; LOW, HIGH: quartiles of the share
#   note   TEXT
BEGIN { FS = "\t"; rows = 0 }
function ms(x) { return x >= 1000 ? sprintf("%.0f", x) : x >= 100 ? sprintf("%.1f", x) : x >= 1 ? sprintf("%.2f", x) : sprintf("%.4f", x) }
function percent(x) { return sprintf("%.1f %%", 100 * x) }
$1 == "row" { r = ++rows; section[r] = $2; what[r] = $3; threads[r] = $4; unit[r] = $5; asked[r] = $6; asked_peers[r] = $7; count[r] = 0 }
$1 == "one" { i = ++count[r]; name[r, i] = $2; time[r, i] = $3; part[r, i] = $4; low[r, i] = $5; high[r, i] = $6; over[r, i] = $7; ran[r, i] = $8 }
$1 == "note" { note[++notes] = $2 }

function passes(r,   i, k, words, n) {
    if (!count[r] || (asked[r] == "" && asked_peers[r] == "")) return ""
    if (asked[r] != "" && (unit[r] == "s" ? time[r, 1] > 1000 * asked[r] : part[r, 1] < asked[r])) return "no"
    n = split(asked_peers[r], words, " ")
    for (k = 1; k < n; k += 2) for (i = 2; i <= count[r]; i++) if (name[r, i] == words[k] && over[r, i] < words[k + 1]) return "no"
    return "yes"
}
function wanted(r,   words, n, k, text) {
    if (asked[r] != "") text = unit[r] == "s" ? asked[r] " s" : sprintf("%g %%", 100 * asked[r])
    n = split(asked_peers[r], words, " ")
    for (k = 1; k < n; k += 2) text = text (text == "" ? "" : ", ") words[k] " " words[k + 1] "x"
    return text
}
function line(r,   i, peers, best, spread) {
    for (i = 2; i <= count[r]; i++) {
        peers = peers (i > 2 ? ", " : "") name[r, i] " " ms(time[r, i]) (part[r, i] != "" ? " (" percent(part[r, i]) ")" : "")
        if (!best || over[r, i] < over[r, best]) best = i
    }
    spread = part[r, 1] == "" ? "" : percent(part[r, 1]) (low[r, 1] == "" ? "" : sprintf(" (%.1f to %.1f)", 100 * low[r, 1], 100 * high[r, 1]))
    printf "| %s | %s | %s | %s | %s | %s | %s | %s |\n", what[r], threads[r], ms(time[r, 1]), spread, peers, best ? sprintf("%.2fx %s", over[r, best], name[r, best]) : "", wanted(r), passes(r)
}
function heading(unit) {
    print "| what | threads | ours, ms | share of the " (unit == "bandwidth" ? "bandwidth" : "peak") " (quartiles) | peers, ms (share) | fastest peer over ours | asked | met |"
    print "| --- | --- | --- | --- | --- | --- | --- | --- |"
}
function escape(t) { gsub(/&/, "\\&amp;", t); gsub(/</, "\\&lt;", t); return t }
function text(x, y, anchor, size, color, t) { printf "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" font-size=\"%d\" fill=\"%s\">%s</text>\n", x, y, anchor, size, color, escape(t) }
function bar(x, y, w, h, color) { printf "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x, y, w < 0.5 ? 0.5 : w, h, color }

# A panel for each number of threads; a band for each thing measured; a bar for each contender, as long as its share.
function chart(   r, i, k, t, w, bands, panels, y, x, left, wide, gap, thick, height, bottom, place, order, colors, legend, last, tallest) {
    split("heddle oneDNN OpenBLAS BLIS PyTorch ONNX_Runtime", order, " ")
    split("#c2410c #2563eb #0d9488 #7c3aed #64748b #ca8a04", colors, " ")
    left = 330; wide = 360; gap = 70; thick = 9
    for (r = 1; r <= rows; r++) {
        if (unit[r] == "s" || !count[r]) continue
        t = threads[r]; if (!(t in panel)) { panel[t] = ++panels; panel_name[panels] = t }
        w = section[r] "\t" what[r]; if (!(w in band)) { band[w] = ++bands; band_name[bands] = w }
        if (count[r] > tallest_of[w]) tallest_of[w] = count[r]
        at[w, t] = r
    }
    y = 96
    for (k = 1; k <= bands; k++) { split(band_name[k], legend, "\t"); if (legend[1] != last) y += 30; last = legend[1]; place[k] = y; y += tallest_of[band_name[k]] * thick + 9 }
    bottom = y; height = bottom + 40
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"Helvetica, Arial, sans-serif\">\n", left + panels * (wide + gap), height
    printf "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
    text(16, 28, "start", 18, "#111827", "heddle and other libraries: share of what this machine can do")
    x = 16
    for (i = 1; i <= 6; i++) { bar(x, 42, 12, 12, colors[i]); legend[1] = order[i]; sub(/_/, "-", legend[1]); text(x + 17, 53, "start", 12, "#111827", legend[1]); x += 34 + 7 * length(legend[1]) }
    printf "<rect x=\"%.1f\" y=\"40\" width=\"2\" height=\"16\" fill=\"#111827\"/>\n", x; text(x + 8, 53, "start", 12, "#111827", "asked")
    last = ""
    for (k = 1; k <= bands; k++) {
        split(band_name[k], legend, "\t")
        if (legend[1] != last) text(16, place[k] - 9, "start", 14, "#111827", legend[1])
        last = legend[1]
        text(left - 10, place[k] + tallest_of[band_name[k]] * thick / 2 + 4, "end", 12, "#374151", legend[2])
    }
    for (i = 1; i <= panels; i++) {
        t = panel_name[i]; x = left + (i - 1) * (wide + gap)
        text(x, 84, "start", 14, "#111827", t (t == 1 ? " thread" : " threads"))
        for (k = 0; k <= 100; k += 25) {
            printf "<line x1=\"%.1f\" y1=\"92\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#e5e7eb\"/>\n", x + wide * k / 100, x + wide * k / 100, bottom
            text(x + wide * k / 100, bottom + 16, "middle", 11, "#6b7280", k " %")
        }
        for (k = 1; k <= bands; k++) {
            w = band_name[k]; if (!((w, t) in at)) continue
            r = at[w, t]
            for (y = 1; y <= count[r]; y++) {
                for (last = 1; last < 6; last++) { legend[1] = order[last]; sub(/_/, "-", legend[1]); if (legend[1] == name[r, y]) break }
                bar(x, place[k] + (y - 1) * thick, wide * (part[r, y] > 1 ? 1 : part[r, y]), thick - 1.5, colors[last])
                text(x + wide * (part[r, y] > 1 ? 1 : part[r, y]) + 3, place[k] + y * thick - 1.5, "start", 8, "#374151", sprintf("%.1f", 100 * part[r, y]))
            }
            if (asked[r] != "") printf "<rect x=\"%.1f\" y=\"%.1f\" width=\"2\" height=\"%.1f\" fill=\"#111827\"/>\n", x + wide * asked[r] - 1, place[k] - 2, count[r] * thick + 3
        }
    }
    print "</svg>"
}
END {
    if (form == "chart") { chart(); exit }
    for (r = 1; r <= rows; r++) {
        if (form == "table" && section[r] != section[r - 1]) { print "\n## " section[r] "\n"; heading(unit[r]) }
        if (form == "row" && new) heading(unit[r])
        line(r)
    }
    if (notes) print ""
    for (r = 1; r <= notes; r++) print "- " note[r]
}
