/* Where the bytes and the time go: the memory plan over the steps of each entry, and the predicted time of each kernel. */
#include "predict.h"
#include "view.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LEFT = HD_PAGE_MARGIN + 62, WIDTH = HD_PAGE_WIDTH - HD_PAGE_MARGIN - LEFT, MOST_TIPS = 1200, MOST_BOXES = 8000, GRAIN = 2 };

/* Kinds of steps by their kernel's template; the first row that fits. */
static const struct { const char *start, *name; int colour; } kinds[] = {
    { "product", "products", 0 }, { "experts", "products", 0 }, { "attention", "attention", 1 }, { "norm", "norms, rows", 2 }, { "softmax", "norms, rows", 2 }, { "cross_entropy", "norms, rows", 2 },
    { "reduce", "norms, rows", 2 }, { "map", "elementwise", 4 }, { "rope", "elementwise", 4 }, { "pack", "packed weights", 7 }, { "embedding", "embeddings", 6 }, { "optimiser", "optimiser", 5 }, { "", "moved data", 3 },
};

static int kind_of(const char *template_name)
{
    int k = 0;
    while (strncmp(template_name, kinds[k].start, strlen(kinds[k].start))) k++;
    return k;
}

/* ---- memory ---- */

static const char *grain_looks(int value) { return hd_format("class=\"px s%d\"", kinds[value - 1].colour); }

static bool planned(const hd_buffer *b) { return b->area == HD_AREA_SCRATCH && b->last >= 0 && b->bytes > 0; }

/* Programs of many thousand boxes: the same picture by the grain, so that the page stays small. */
static void draw_grains(hd_text *out, const hd_program *p, bool *seen, double top, int height)
{
    const int columns = WIDTH / GRAIN, rows = height / GRAIN;
    unsigned char *grain = hd_alloc((size_t)(rows * columns));
    for (int i = 0; i < p->buffers; i++) {
        const hd_buffer *b = p->buffer[i];
        if (!planned(b)) continue;
        const int k = kind_of(p->step[b->first].kernel->template_name);
        seen[k] = true;
        const int x0 = (int)((int64_t)b->first * columns / p->steps), x1 = (int)((int64_t)b->last * columns / p->steps);
        const int y0 = (int)((double)b->offset * rows / (double)p->scratch_bytes), y1 = (int)((double)(b->offset + b->bytes - 1) * rows / (double)p->scratch_bytes);
        for (int y = y0; y <= y1; y++) memset(grain + (rows - 1 - y) * columns + x0, k + 1, (size_t)(x1 - x0 + 1));
    }
    hd_text_add(out, "<g transform=\"translate(%d %.6g) scale(%d) translate(0 .5)\">\n", LEFT, top, GRAIN);
    hd_pixels_draw(out, grain, rows, columns, grain_looks);
    hd_text_add(out, "</g>\n");
}

static double draw_plan(hd_text *out, const hd_program *p, double y, bool *seen)
{
    enum { HEIGHT = 190 };
    hd_page_text(out, HD_PAGE_MARGIN, y + 18, "u", "%s", hd_page_clip(p->entry->name, 40));
    if (p->scratch_bytes <= 0 || p->steps < 1) {
        hd_page_text(out, LEFT + 120, y + 18, "m", "%s step%s, no scratch memory but %s a thread", hd_page_count(p->steps), p->steps == 1 ? "" : "s", hd_page_bytes((double)p->local_bytes));
        return y + 34;
    }
    const double over = (double)p->scratch_bytes / (double)(p->lower_bound_bytes > 0 ? p->lower_bound_bytes : 1) - 1;
    hd_page_text(out, HD_PAGE_WIDTH - HD_PAGE_MARGIN, y + 18, "e m", "%s planned, %s; %s steps; %s a thread besides", hd_page_bytes((double)p->scratch_bytes),
                 over <= 0 ? "exactly the lower bound" : hd_format("%s over the lower bound of %s", hd_page_share(over), hd_page_bytes((double)p->lower_bound_bytes)), hd_page_count(p->steps), hd_page_bytes((double)p->local_bytes));
    const double top = y + 34, bottom = top + HEIGHT, sx = (double)WIDTH / p->steps, sy = HEIGHT / (double)p->scratch_bytes;
    hd_page_rect(out, LEFT, top, WIDTH, HEIGHT, "card");
    int count = 0;
    for (int i = 0; i < p->buffers; i++) count += planned(p->buffer[i]);
    const int kind_count = (int)(sizeof kinds / sizeof *kinds);
    int64_t *live = HD_NEW_ARRAY(int64_t, p->steps + 2);
    if (count > MOST_BOXES) draw_grains(out, p, seen, top, HEIGHT);
    for (int k = 0; k < kind_count && count <= MOST_BOXES; k++) {
        hd_text path = { 0 };
        for (int i = 0; i < p->buffers; i++) {
            const hd_buffer *b = p->buffer[i];
            if (!planned(b) || kind_of(p->step[b->first].kernel->template_name) != k) continue;
            seen[k] = true;
            const double x = LEFT + sx * b->first, w = sx * (b->last - b->first + 1), h = sy * (double)b->bytes, at = bottom - sy * (double)(b->offset + b->bytes);
            if (count <= MOST_TIPS) hd_page_rect_about(out, x, at, w, h, hd_format(w > 3 && h > 3 ? "f%d gap" : "f%d", kinds[k].colour), "%s, %s: steps %d to %d, at %s", b->what ? b->what : kinds[k].name, hd_page_bytes((double)b->bytes), b->first, b->last, hd_page_bytes((double)b->offset));
            else hd_text_add(&path, "M%.5g %.5gh%.4gv%.4gh%.4gz", x, at, w, h, -w);
        }
        if (path.length) hd_text_add(out, "<path class=\"f%d\" d=\"%s\"/>\n", kinds[k].colour, path.data);
    }
    /* a buffer that lies on another was born at the step where that one died: it counts from the step after */
    for (int i = 0; i < p->buffers; i++) {
        const hd_buffer *b = p->buffer[i];
        if (!planned(b)) continue;
        live[b->first + (b->same != NULL)] += b->bytes, live[b->last + 1] -= b->bytes;
    }
    int64_t alive = 0;
    hd_text_add(out, "<path class=\"live\"%s d=\"", p->steps > 300 ? " style=\"stroke-width:.7\"" : "");
    const int together = 1 + (p->steps - 1) / 2000;      /* steps to a piece of the line: its highest is drawn */
    for (int s = 0; s < p->steps; s += together) {
        int64_t highest = 0;
        for (int k = s; k < s + together && k < p->steps; k++) {
            alive += live[k];
            if (alive > highest) highest = alive;
        }
        hd_text_add(out, "%s%.5g %.5gh%.4g", s ? "L" : "M", LEFT + sx * s, bottom - sy * (double)highest, sx * (s + together < p->steps ? together : p->steps - s));
    }
    hd_text_add(out, "\"/>\n");
    const double bound = bottom - sy * (double)p->lower_bound_bytes;
    hd_text_add(out, "<path class=\"bound\" d=\"M%d %.6gh%d\"/>\n", LEFT, bound, WIDTH);
    hd_page_text(out, LEFT - 8, top + 10, "m z e", "%s", hd_page_bytes((double)p->scratch_bytes));
    if (bound > top + 16) hd_page_text(out, LEFT - 8, bound + 4, "m z e", "%s", hd_page_bytes((double)p->lower_bound_bytes));
    hd_page_text(out, LEFT - 8, bottom, "m z e", "0");
    hd_page_text(out, LEFT, bottom + 16, "m z", "step 0");
    hd_page_text(out, LEFT + WIDTH, bottom + 16, "m z e", "%s", hd_page_count(p->steps - 1));
    return bottom + 34;
}

double hd_memory_draw(hd_text *out, const hd_model *m)
{
    enum { KINDS = sizeof kinds / sizeof *kinds };
    bool seen[KINDS] = { false };
    hd_text charts = { 0 };
    double y = 122;
    for (int i = 0; i < m->programs; i++) y = draw_plan(&charts, m->program[i], y, seen);
    hd_page_text(out, HD_PAGE_MARGIN, 24, "h", "Memory");
    hd_page_lines(out, HD_PAGE_MARGIN, 48, "m", 128, hd_format("Weights %s%s%s. Scratch of each entry over its steps: a box is a tensor from its first to its last step, at its offset. The line is what is alive at once; its highest point is the lower bound of any plan.", hd_page_bytes((double)m->weights_bytes),
                 m->packing.bytes ? hd_format(", packed for inference %s", hd_page_bytes((double)m->packing.bytes)) : "",
                 m->state_bytes ? hd_format(", gradients and moments %s", hd_page_bytes((double)m->state_bytes)) : ""));
    double x = HD_PAGE_MARGIN;
    for (int k = 0; k < KINDS; k++) {
        bool before = false;
        for (int b = 0; b < k; b++) before = before || (seen[b] && !strcmp(kinds[b].name, kinds[k].name));
        if (!seen[k] || before) continue;
        hd_page_rect(out, x, 87, 13, 13, hd_format("f%d", kinds[k].colour));
        hd_page_text(out, x + 20, 98, "", "%s", kinds[k].name);
        x += 34 + 6.9 * (double)strlen(kinds[k].name);
    }
    if (charts.length && x > HD_PAGE_MARGIN) {
        hd_text_add(out, "<path class=\"live\" d=\"M%.6g 94h26\"/>", x + 4);
        hd_page_text(out, x + 38, 98, "", "alive");
        hd_text_add(out, "<path class=\"bound\" d=\"M%.6g 94h34\"/>", x + 86);
        hd_page_text(out, x + 128, 98, "", "lower bound");
    }
    hd_text_addn(out, charts.data ? charts.data : "", charts.length);
    return y + 8;
}

/* ---- kernels ---- */

typedef struct usage { const struct hd_kernel *kernel; int calls; double flops, bytes; hd_step_time time; } usage;

static int by_seconds(const void *a, const void *b)
{
    const usage *x = a, *y = b;
    if (x->time.all != y->time.all) return x->time.all < y->time.all ? 1 : -1;
    return strcmp(x->kernel->name, y->kernel->name);
}

static void add(usage *to, int calls, double flops, double bytes, hd_step_time time)
{
    to->calls += calls, to->flops += flops, to->bytes += bytes;
    to->time.compute += time.compute, to->time.move += time.move, to->time.all += time.all;
}

static int add_program(usage *list, int count, const hd_program *p, const hd_machine *machine, const hd_target *target)
{
    for (int s = 0; s < p->steps; s++) {
        const hd_step *step = &p->step[s];
        int k = 0;
        while (k < count && list[k].kernel != step->kernel) k++;
        if (k == count) list[count++] = (usage){ .kernel = step->kernel };
        add(&list[k], 1, step->flops, step->bytes, hd_predict_step(machine, target, step, HD_ONE_THREAD));
    }
    return count;
}

static void draw_bar(hd_text *out, double x, double y, double width, double share, const char *looks)
{
    hd_page_rect(out, x, y - 10, width, 11, "soft");
    if (share > 1) share = 1;
    if (share > 0) hd_page_rect(out, x, y - 10, width * share < 1 ? 1 : width * share, 11, looks);
}

static void draw_usage(hd_text *out, const usage *u, const usage *most, double total, const char *name, double y)
{
    enum { CALLS = 402, FLOPS = 418, BYTES = 626, TIME = 834, BAR = 112 };
    hd_text_add(out, "<g><title>");
    hd_page_escape(out, name);
    hd_text_add(out, "</title>\n");
    hd_page_text(out, HD_PAGE_MARGIN, y, "c", "%s", hd_page_clip(name, 42));
    hd_page_text(out, CALLS, y, "e m", "%s\xc3\x97", hd_page_count(u->calls));
    draw_bar(out, FLOPS, y, BAR, u->flops / most->flops, "f0");
    hd_page_text(out, FLOPS + BAR + 8, y, "z", "%s", u->flops > 0 ? hd_page_flops(u->flops) : "none");
    draw_bar(out, BYTES, y, BAR, u->bytes / most->bytes, "f1");
    hd_page_text(out, BYTES + BAR + 8, y, "z", "%s", hd_page_bytes(u->bytes));
    draw_bar(out, TIME, y, BAR, u->time.all / most->time.all, u->time.compute >= u->time.move ? "f0" : "f1");
    hd_page_text(out, TIME + BAR + 8, y, "z", "%s", hd_page_time(u->time.all));
    hd_page_text(out, HD_PAGE_WIDTH - HD_PAGE_MARGIN, y, "e b", "%s", hd_page_share(total > 0 ? u->time.all / total : 0));
    hd_text_add(out, "</g>\n");
}

double hd_kernels_draw(hd_text *out, const hd_model *m)
{
    enum { SHOWN = 24 };
    const hd_machine machine = hd_machine_of_class(m->target);      /* not of this machine: the same page wherever it is made */
    const hd_speeds *speeds = &machine.speeds[HD_ONE_THREAD];
    const hd_program *training = NULL;
    for (int i = 0; i < m->programs; i++) if (m->program[i]->entry->effects) training = m->program[i];
    usage *list = HD_NEW_ARRAY(usage, m->kernels.count + 1);
    int count = 0;
    for (int i = 0; i < m->programs; i++)
        if (!training || m->program[i] == training) count = add_program(list, count, m->program[i], &machine, m->target);
    if (!count) return 0;
    qsort(list, (size_t)count, sizeof *list, by_seconds);
    usage most = { .flops = 1, .bytes = 1, .time.all = 1e-12 }, rest = { 0 }, total = { 0 };
    for (int k = 0; k < count; k++) {
        if (list[k].flops > most.flops) most.flops = list[k].flops;
        if (list[k].bytes > most.bytes) most.bytes = list[k].bytes;
        if (list[k].time.all > most.time.all) most.time.all = list[k].time.all;
        usage *into[] = { &total, k >= SHOWN ? &rest : NULL };
        for (int w = 0; w < 2 && into[w]; w++) add(into[w], list[k].calls, list[k].flops, list[k].bytes, list[k].time);
    }
    hd_page_text(out, HD_PAGE_MARGIN, 24, "h", "Kernels");
    hd_page_text(out, HD_PAGE_MARGIN, 48, "m", "%s: %s, %s moved, predicted %s on one thread. Colours of times: mostly arithmetic (blue), mostly memory (orange).",
                 training ? hd_format("One %s", training->entry->name) : m->programs > 1 ? "One call of every entry" : hd_format("One %s", m->program[0]->entry->name), hd_page_flops(total.flops), hd_page_bytes(total.bytes), hd_page_time(total.time.all));
    hd_page_text(out, HD_PAGE_MARGIN, 68, "m", "For a CPU of the class of target %s: %.0f GFLOP/s, %.0f GB/s from memory. heddle info predicts for this machine, PROGRAM bench measures.", m->target->name, speeds->fma, speeds->read[HD_DRAM]);
    hd_page_text(out, 402, 98, "m z e", "calls");
    hd_page_text(out, 418, 98, "m z", "arithmetic");
    hd_page_text(out, 626, 98, "m z", "memory");
    hd_page_text(out, 834, 98, "m z", "predicted time");
    double y = 104;
    const size_t prefix = strlen(m->graph->name) + 1;
    for (int k = 0; k < count && k < SHOWN; k++) {
        const char *name = list[k].kernel->name;
        draw_usage(out, &list[k], &most, total.time.all, strlen(name) > prefix && !strncmp(name, m->graph->name, prefix - 1) ? name + prefix : name, y += 21);
    }
    if (rest.calls) draw_usage(out, &rest, &most, total.time.all, hd_format("%d more kernels", count - SHOWN), y += 21);
    return y + 28;
}
