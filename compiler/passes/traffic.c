/* How far away lies what each step moves: the bytes moved since it was last touched (hd_traffic.h).
 *
 * Memory is cut into grains; a grain remembers the clock of its last touch, and the clock counts bytes. A step goes through its
 * operands side by side: what it touches halfway through an operand is touched halfway through the step. The entry runs twice, as
 * at first everything is far; the second time counts. A distance is the traffic between two touches: at least the distinct
 * bytes that a cache must hold to still have the first; so all the entry's memory is the most that it can be. */
#include "passes.h"

enum { GRAIN = 16 << 10, MOST_GRAINS = 1 << 18 };

/* Areas one after another, each of the entry's tensors an area of its own. */
typedef struct memory { int areas; int64_t *start, grain, bytes; double *touched; /* by grain: the clock */ } memory;

static int area_of(const hd_buffer *b) { return b->area == HD_AREA_ARGUMENT ? HD_AREA_ARGUMENT + b->argument : (int)b->area; }

/* Bytes of an operand within its area. */
static void range_of(const hd_argument *a, int64_t *first, int64_t *end)
{
    int64_t last = a->view.offset;
    for (int i = 0; i < a->view.shape.rank; i++) last += (a->view.shape.size[i] - 1) * a->view.stride[i];
    const int64_t base = a->view.buffer->area == HD_AREA_ARGUMENT ? 0 : a->view.buffer->offset;
    *first = base + 4 * a->view.offset, *end = base + 4 * (last + 1);
}

static memory lay_out(const hd_program *p)
{
    memory m = { .areas = HD_AREA_ARGUMENT + p->entry->inputs + p->entry->outputs };
    int64_t all = 0, first, end, *bytes = HD_NEW_ARRAY(int64_t, m.areas);
    m.start = HD_NEW_ARRAY(int64_t, m.areas);
    for (int s = 0; s < p->steps; s++)
        for (int k = 0; k < p->step[s].arguments; k++) {
            const hd_argument *a = &p->step[s].argument[k];
            if (!a->view.buffer) continue;
            range_of(a, &first, &end);
            if (end > bytes[area_of(a->view.buffer)]) bytes[area_of(a->view.buffer)] = end;
        }
    for (int i = 0; i < m.areas; i++) m.start[i] = all, all += bytes[i];
    m.grain = all / GRAIN < MOST_GRAINS ? GRAIN : all / MOST_GRAINS + 1;
    m.bytes = all;
    m.touched = HD_NEW_ARRAY(double, all / m.grain + 2);
    for (int64_t i = 0; i < all / m.grain + 2; i++) m.touched[i] = -1e18;
    return m;
}

/* Goes through an operand of a step that moves `length` bytes from the clock `begun` on: adds the operand's bytes to `moved` by
 * distance, or (moved NULL) leaves the clock in its grains. */
static void touch(memory *m, const hd_argument *a, double begun, double length, double *moved)
{
    int64_t first, end;
    range_of(a, &first, &end);
    const int64_t start = m->start[area_of(a->view.buffer)];
    first = (start + first) / m->grain, end = (start + end - 1) / m->grain + 1;
    const double count = (double)(end - first), each = 4.0 * (double)a->elements / count;
    for (int64_t g = first; g < end; g++) {
        const double now = begun + length * ((double)(g - first) + 0.5) / count, distance = now - m->touched[g] < (double)m->bytes ? now - m->touched[g] : (double)m->bytes;
        int i = 0;
        while (i < HD_DISTANCES - 1 && distance >= hd_distance(i)) i++;
        if (moved) moved[i] += each;
        else m->touched[g] = now;
    }
}

double hd_step_bytes(const hd_step *s)
{
    double bytes = 0;
    for (int k = 0; k < s->arguments; k++) {
        const hd_argument *a = &s->argument[k];
        if (a->view.buffer) bytes += 4.0 * (double)a->elements * (a->writes && a->updates ? 2 : 1) * s->share;
    }
    return bytes;
}

void hd_count_traffic(hd_program *p)
{
    memory m = lay_out(p);
    double clock = 0;
    for (int round = 0; round < 2; round++)
        for (int s = 0; s < p->steps; s++) {
            hd_step *step = &p->step[s];
            for (int leave = round == 0; leave < 2; leave++)      /* all operands find what the steps before have left */
                for (int k = 0; k < step->arguments; k++) {
                    const hd_argument *a = &step->argument[k];
                    if (!a->view.buffer) continue;
                    if (leave) touch(&m, a, clock, step->bytes, NULL);
                    if (!leave && (!a->writes || a->updates)) touch(&m, a, clock, step->bytes, step->traffic.read);
                    if (!leave && a->writes && a->updates) step->traffic.written[0] += 4.0 * (double)a->elements;      /* where it was just read */
                    if (!leave && a->writes && !a->updates) touch(&m, a, clock, step->bytes, step->traffic.written);
                }
            for (int i = 0; i < HD_DISTANCES && round == 1; i++) {
                step->traffic.read[i] *= step->share, step->traffic.written[i] *= step->share;
            }
            clock += step->bytes;
        }
}
