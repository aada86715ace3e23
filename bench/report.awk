# What bench/bench.sh measured, as Markdown or as a chart.      awk -f bench/report.awk -v form=row|table|chart FILE...
# Each file holds one row: lines of words separated by tabs,
#   row    SECTION  WHAT  THREADS  UNIT  ASKED SHARE  ASKED OF PEERS      UNIT: peak, bandwidth (shares of it), or s (seconds at most);
#                                                                         ASKED OF PEERS: "oneDNN 0.99 BLIS 1": least time of theirs over ours
#   one    NAME  MILLISECONDS  SHARE  LOW  HIGH  TIME OVER OURS  WHAT RAN      the first is ours; LOW, HIGH: quartiles of the share
BEGIN { FS = "\t"; rows = 0 }
function ms(x) { return x >= 1000 ? sprintf("%.0f", x) : x >= 100 ? sprintf("%.1f", x) : x >= 1 ? sprintf("%.2f", x) : sprintf("%.4f", x) }
function percent(x) { return sprintf("%.1f %%", 100 * x) }
$1 == "row" { r = ++rows; section[r] = $2; what[r] = $3; threads[r] = $4; unit[r] = $5; asked[r] = $6; asked_peers[r] = $7; count[r] = 0 }
$1 == "one" { i = ++count[r]; name[r, i] = $2; time[r, i] = $3; part[r, i] = $4; low[r, i] = $5; high[r, i] = $6; over[r, i] = $7; ran[r, i] = $8 }

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

# A panel for each number of threads; a band for each thing measured; in it a bar for each contender, as long as its share.
function label(key, words) { split(key, words, FS); return words[2] }
function heading_of(key, words) { split(key, words, FS); return words[1] }
function chart(   r, i, k, c, palette, key, x, y, share, color, used, panel, panels, band, bands, bars, place, at, left, wide, gap, thick) {
    split("heddle #c2410c oneDNN #2563eb OpenBLAS #0d9488 BLIS #7c3aed PyTorch #64748b ONNX-Runtime #ca8a04", palette, " ")
    for (i = 1; i < 12; i += 2) color[palette[i]] = palette[i + 1]
    left = 330; wide = 360; gap = 70; thick = 9
    for (r = 1; r <= rows; r++) {
        if (unit[r] == "s" || !count[r]) continue
        key = section[r] FS what[r]
        if (!(threads[r] in used)) { used[threads[r]] = 1; panel[++panels] = threads[r] }
        if (!(key in bars)) band[++bands] = key
        if (count[r] > bars[key]) bars[key] = count[r]
        for (i = 1; i <= count[r]; i++) seen[name[r, i]] = 1
        at[key, threads[r]] = r
    }
    y = 96
    for (k = 1; k <= bands; k++) {
        if (k == 1 || heading_of(band[k]) != heading_of(band[k - 1])) y += 30
        place[k] = y
        y += bars[band[k]] * thick + 9
    }
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"Helvetica, Arial, sans-serif\">\n", left + panels * (wide + gap), y + 40
    print "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    text(16, 28, "start", 18, "#111827", "heddle and other libraries: share of what this machine can do")
    x = 16
    for (i = 1; i < 12; i += 2) {
        if (!(palette[i] in seen)) continue
        bar(x, 42, 12, 12, palette[i + 1])
        text(x + 17, 53, "start", 12, "#111827", palette[i])
        x += 36 + 7 * length(palette[i])
    }
    bar(x, 40, 2, 16, "#111827")
    text(x + 8, 53, "start", 12, "#111827", "asked")
    for (k = 1; k <= bands; k++) {
        if (k == 1 || heading_of(band[k]) != heading_of(band[k - 1])) text(16, place[k] - 9, "start", 14, "#111827", heading_of(band[k]))
        text(left - 10, place[k] + bars[band[k]] * thick / 2 + 4, "end", 12, "#374151", label(band[k]))
    }
    for (i = 1; i <= panels; i++) {
        x = left + (i - 1) * (wide + gap)
        text(x, 84, "start", 14, "#111827", panel[i] (panel[i] == 1 ? " thread" : " threads"))
        for (k = 0; k <= 100; k += 25) {
            printf "<line x1=\"%.1f\" y1=\"92\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#e5e7eb\"/>\n", x + wide * k / 100, x + wide * k / 100, y
            text(x + wide * k / 100, y + 16, "middle", 11, "#6b7280", k " %")
        }
        for (k = 1; k <= bands; k++) {
            if (!((band[k], panel[i]) in at)) continue
            r = at[band[k], panel[i]]
            for (c = 1; c <= count[r]; c++) {
                share = part[r, c] > 1 ? 1 : part[r, c]
                bar(x, place[k] + (c - 1) * thick, wide * share, thick - 1.5, color[name[r, c]])
                text(x + wide * share + 3, place[k] + c * thick - 1.5, "start", 8, "#374151", sprintf("%.1f", 100 * part[r, c]))
            }
            if (asked[r] != "") bar(x + wide * asked[r] - 1, place[k] - 2, 2, count[r] * thick + 3, "#111827")
        }
    }
    print "</svg>"
}

# What the other libraries ran: of a section and a library, each thing once.
function print_what_ran(   r, i, key, all, keys, list) {
    for (r = 1; r <= rows; r++) {
        for (i = 2; i <= count[r]; i++) {
            key = section[r] FS name[r, i]
            if (ran[r, i] == "" || (key, ran[r, i]) in all) continue
            all[key, ran[r, i]] = 1
            if (!(key in list)) keys[++keys[0]] = key
            list[key] = list[key] (list[key] == "" ? "" : "; ") ran[r, i]
        }
    }
    if (keys[0]) print "\nWhat ran:\n"
    for (i = 1; i <= keys[0]; i++) print "- " heading_of(keys[i]) ", " label(keys[i]) ": " list[keys[i]]
}

END {
    if (form == "chart") { chart(); exit }
    for (r = 1; r <= rows; r++) {
        if (form == "table" && section[r] != section[r - 1]) { print "\n## " section[r] "\n"; heading(unit[r]) }
        if (form == "row" && new) heading(unit[r])
        line(r)
    }
    if (form == "table") print_what_ran()
}
