/* heddle view: a page about a model, for people. The masks of its patterns, what they reach over layers, the graph, the plan of
 * its memory, and where time and bytes should go. SVG stands still; HTML is the same pictures, and the row under the pointer
 * shows its keys. One file, nothing fetched from anywhere; every word of the spec is escaped. */
#include "view.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_MASKS = 12, MOST_USES = 256, MOST_MASK_BYTES = 1000 << 10 };

typedef struct part { hd_text text; double height; } part;

/* ---- what the model uses ---- */

static int use_of(hd_use *use, int *uses, const hd_node *n, const hd_pattern *p, bool *made)
{
    const hd_shape *q = &n->input[0]->shape, *k = &n->input[1]->shape;
    const int64_t queries = q->size[q->rank - 2], keys = k->size[k->rank - 2];
    for (int u = 0; u < *uses; u++)
        if (use[u].cover->queries == queries && use[u].cover->keys == keys && hd_pattern_equal(use[u].pattern, p)) return u;
    if (*uses == MOST_USES) return -1;
    use[*uses] = (hd_use){ .pattern = p, .cover = hd_cover_make(p, queries, keys), .where = n->where };
    *made = true;
    return (*uses)++;
}

/* Counted are the operations of the entry that is drawn; other entries (gradients alone, say) may add patterns of their own. */
static int gather_uses(const hd_graph *g, hd_use *use)
{
    int uses = 0;
    bool *live;
    hd_diagram_entry(g, &live);
    for (int rest = 0; rest < 2; rest++)
        for (int i = 0; i < g->nodes; i++) {
            const hd_node *n = g->node[i];
            if (live[i] == rest || (n->op != HD_OP_attention && n->op != HD_OP_attention_dx)) continue;
            const int patterns = n->attr.attention.patterns;
            struct { int use; bool made; } *head = hd_alloc(sizeof *head * (size_t)patterns);
            for (int h = 0; h < patterns; h++) {
                bool again = false;
                const int u = head[h].use = use_of(use, &uses, n, n->attr.attention.pattern[h], &head[h].made);
                for (int b = 0; b < h && !again; b++)
                    if (head[b].use == u) again = true, head[h].made = head[b].made;
                if (u < 0 || (rest && !head[h].made)) continue;
                use[u].heads += patterns == 1 ? n->attr.attention.heads : 1;
                if (again) continue;
                use[u].nodes++;
                if (n->name && !use[u].first) use[u].first = n->name;
                if (n->name) use[u].last = n->name;
            }
        }
    return uses;
}

/* ---- parts of view.c itself ---- */

static part draw_head(const hd_model *m)
{
    const hd_graph *g = m->graph;
    part p = { .height = 110 };
    int64_t parameters = 0;
    for (int i = 0; i < g->nodes; i++)
        if (g->node[i]->op == HD_OP_param && g->node[i]->attr.param.role == HD_WEIGHT) parameters += hd_elements(&g->node[i]->shape);
    hd_page_text(&p.text, HD_PAGE_MARGIN, 62, "big", "%s", g->name);
    hd_page_text(&p.text, HD_PAGE_WIDTH - HD_PAGE_MARGIN, 44, "e b", "%s", parameters ? hd_format("%s parameters", hd_page_count(parameters)) : "no parameters");
    hd_page_text(&p.text, HD_PAGE_WIDTH - HD_PAGE_MARGIN, 64, "e m", "%s, target %s, heddle %s", hd_page_clip(g->spec ? g->spec : "", 70), m->target->name, m->version);
    hd_text config = { 0 };
    for (int i = 0; i < g->configs; i++) hd_text_add(&config, "%s%s=%s", i ? "  " : "", g->config[i].key, g->config[i].value);
    if (config.length) p.height = hd_page_lines(&p.text, HD_PAGE_MARGIN, 94, "m c", 136, hd_page_clip(config.data, 136 * 4)) + 14;
    return p;
}

static part draw_masks(const hd_use *use, int uses, int64_t query, hd_text *data)
{
    part p = { .height = 84 };
    hd_page_text(&p.text, HD_PAGE_MARGIN, 24, "h", uses == 1 ? "Pattern" : "%d patterns", uses);
    hd_page_lines(&p.text, HD_PAGE_MARGIN, 48, "m", 128, "Which keys (across) each query (down) reads. Colours are the families of tiles that heddle cuts the pattern into, loops with constant bounds, every kept pair in exactly one; or, where rows are listed, how many neighbours share a key.");
    int shown = 0;
    for (; shown < uses && shown < MOST_MASKS && p.text.length < MOST_MASK_BYTES; shown++) {
        hd_text one = { 0 };
        const double height = hd_mask_draw(&one, &use[shown], shown, query, data);
        hd_text_add(&p.text, "<g transform=\"translate(0 %.6g)\">\n", p.height);
        hd_text_addn(&p.text, one.data, one.length);
        hd_text_add(&p.text, "</g>\n");
        p.height += height + 10;
    }
    for (int u = shown; u < uses && u < shown + 24; u++, p.height += 20)
        hd_page_text(&p.text, HD_PAGE_MARGIN, p.height, "", "%s: %s pairs kept", hd_page_clip(hd_pattern_text(use[u].pattern), 110), hd_page_count(use[u].cover->kept_pairs));
    if (uses > shown + 24) hd_page_text(&p.text, HD_PAGE_MARGIN, p.height, "m", "and %d more", uses - shown - 24), p.height += 20;
    return p;
}

/* Keys of the row under the pointer (or of the arrow keys), from the rows the page embeds. */
static const char script[] =
    "P.forEach(function(p){\n"
    "  var m=p.m,g=document.getElementById('m'+m),mark=document.getElementById('m'+m+'q'),text=document.getElementById('m'+m+'t');\n"
    "  if(!g||!mark)return;\n"
    "  var box=g.querySelector('rect'),at=Math.floor(p.r*3/4),scale=p.c/p.k;\n"
    "  function num(x){return x.toLocaleString('en-US')}\n"
    "  function paths(row,least){\n"
    "    var d=['M0 0','M0 0'];\n"
    "    for(var n=2;n+2<row.length;n+=3){\n"
    "      var s=row[n],e=row[n+1],c=row[n+2],solid=e*scale<=least;\n"
    "      for(var i=0;i<(solid?1:c);i++){var w=Math.max(least,(solid?e*(c-1)+1:1)*scale);d[solid&&e>1?1:0]+='M'+((s+i*e)*scale).toFixed(3)+' 0h'+w.toFixed(3)+'v1h'+(-w).toFixed(3)+'z'}\n"
    "    }\n"
    "    return d;\n"
    "  }\n"
    "  function put(id,d){document.getElementById('m'+m+id).setAttribute('d',d[0]);document.getElementById('m'+m+id+'f').setAttribute('d',d[1])}\n"
    "  function show(r){\n"
    "    at=Math.max(0,Math.min(p.r-1,r));\n"
    "    var row=p.row[at],list='';\n"
    "    for(var n=2;n+2<row.length&&list.length<60;n+=3){\n"
    "      var s=row[n],e=row[n+1],c=row[n+2],l=s+e*(c-1);\n"
    "      list+=(list?', ':'')+s+(c==2?', '+l:c>2&&e==1?'\\u2013'+l:c>2?', '+(s+e)+', \\u2026 '+l:'');\n"
    "    }\n"
    "    if(n+2<row.length)list+=', \\u2026';\n"
    "    text.textContent='query '+num(row[0])+' keeps '+num(row[1])+' key'+(row[1]==1?'':'s')+(list?': '+list:row[1]?' (more than this page lists)':'');\n"
    "    put('k',paths(row,3*p.c/p.w));put('s',paths(row,p.c/p.w));\n"
    "    var y=p.t+(at+.5)*p.h/p.r;mark.setAttribute('transform',mark.getAttribute('transform').replace(/ [^ )]*\\)/,' '+y+')'));\n"
    "  }\n"
    "  function move(e){var b=box.getBoundingClientRect();show(Math.floor((e.clientY-b.top)/b.height*p.r))}\n"
    "  g.style.cursor='crosshair';g.setAttribute('tabindex','0');g.style.outline='none';\n"
    "  g.addEventListener('pointermove',move);g.addEventListener('pointerdown',move);\n"
    "  g.addEventListener('keydown',function(e){var s=e.key=='ArrowDown'?1:e.key=='ArrowUp'?-1:0;if(s){show(at+s);e.preventDefault()}});\n"
    "});\n";

static hd_text as_svg(const part *parts, int count, const char *title)
{
    hd_text out = { 0 };
    double height = 0;
    for (int i = 0; i < count; i++) height += parts[i].height;
    hd_text_add(&out, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%.6g\" viewBox=\"0 0 %d %.6g\">\n<title>", HD_PAGE_WIDTH, height, HD_PAGE_WIDTH, height);
    hd_page_escape(&out, title);
    hd_text_add(&out, "</title>\n<style>%s</style>\n<rect width=\"100%%\" height=\"100%%\" class=\"page\"/>\n", hd_page_style);
    double y = 0;
    for (int i = 0; i < count; y += parts[i++].height) {
        if (i) hd_text_add(&out, "<path class=\"line\" d=\"M%d %.6gh%d\"/>\n", HD_PAGE_MARGIN, y - 14, HD_PAGE_WIDTH - 2 * HD_PAGE_MARGIN);
        hd_text_add(&out, "<g transform=\"translate(0 %.6g)\">\n", y + (i ? 12 : 0));
        hd_text_addn(&out, parts[i].text.data, parts[i].text.length);
        hd_text_add(&out, "</g>\n");
    }
    hd_text_add(&out, "</svg>\n");
    return out;
}

static hd_text as_html(const part *parts, int count, const char *title, const hd_text *data)
{
    hd_text out = { 0 };
    hd_text_add(&out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>");
    hd_page_escape(&out, title);
    hd_text_add(&out, "</title>\n<style>body{margin:0;background:#faf9f6}section{max-width:%dpx;margin:0 auto}svg{display:block;width:100%%;height:auto}section>svg{border-bottom:1px solid #dedcd5}"
                      "@media (prefers-color-scheme:dark){body{background:#16181b}section>svg{border-color:#34383e}}section:last-of-type>svg{border:0}\n%s</style>\n</head>\n<body>\n", HD_PAGE_WIDTH, hd_page_style);
    for (int i = 0; i < count; i++) {
        hd_text_add(&out, "<section><svg viewBox=\"0 %d %d %.6g\" width=\"%d\" height=\"%.6g\">\n", i ? -16 : 0, HD_PAGE_WIDTH, parts[i].height + (i ? 16 : 0), HD_PAGE_WIDTH, parts[i].height + (i ? 16 : 0));
        hd_text_addn(&out, parts[i].text.data, parts[i].text.length);
        hd_text_add(&out, "</svg></section>\n");
    }
    /* the data are numbers alone: nothing in them can end the script */
    if (data->length) hd_text_add(&out, "<script>\nvar P=[%s];\n%s</script>\n", data->data, script);
    hd_text_add(&out, "</body>\n</html>\n");
    return out;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), k = strlen(end);
    return n > k && !strcmp(text + n - k, end);
}

static int64_t query_wanted(const hd_options *o, const hd_use *use, int uses)
{
    if (!o->query) return -1;
    char *end;
    errno = 0;
    const long long query = strtoll(o->query, &end, 10);
    int64_t most = 0;
    for (int u = 0; u < uses; u++) if (use[u].cover->queries > most) most = use[u].cover->queries;
    if (!most) hd_fail((hd_where){ "--query", 0 }, "the model has no attention, so there is no query to mark");
    if (*end || end == o->query || errno || query < 0 || query >= most) hd_fail((hd_where){ "--query", 0 }, "\"%s\" is no query; queries: 0 to %lld", o->query, (long long)most - 1);
    return query;
}

int hd_command_view(const hd_options *o)
{
    if (!o->out) hd_fail((hd_where){ 0 }, "view needs -o FILE.svg or -o FILE.html");
    const bool html = ends_with(o->out, ".html") || ends_with(o->out, ".htm");
    if (!html && !ends_with(o->out, ".svg")) hd_fail((hd_where){ o->out, 0 }, "view draws .svg or .html; give the file one of these endings");
    const hd_model *m = hd_compile(o, false, NULL);
    hd_use *use = HD_NEW_ARRAY(hd_use, MOST_USES);
    const int uses = gather_uses(m->graph, use);
    const int64_t query = query_wanted(o, use, uses);

    part parts[6];
    int count = 0;
    hd_text data = { 0 };
    parts[count++] = draw_head(m);
    if (uses) parts[count++] = draw_masks(use, uses, query, html ? &data : NULL);
    part reach = { 0 }, graph = { 0 }, memory = { 0 }, kernels = { 0 };
    reach.height = hd_reach_draw(&reach.text, m->graph, use, uses);
    graph.height = hd_diagram_draw(&graph.text, m->graph);
    memory.height = hd_memory_draw(&memory.text, m);
    kernels.height = hd_kernels_draw(&kernels.text, m);
    const part rest[] = { reach, graph, memory, kernels };
    for (int i = 0; i < 4; i++) if (rest[i].height > 0) parts[count++] = rest[i];
    for (int i = 1; i < count; i++) parts[i].height += 30;

    const char *title = hd_format("%s: patterns, graph, memory, kernels", m->graph->name);
    const hd_text page = html ? as_html(parts, count, title, &data) : as_svg(parts, count, title);
    hd_write_file(o->out, page.data, page.length);
    return 0;
}
