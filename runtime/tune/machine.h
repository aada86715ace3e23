/* Which machine this is, as tuning records name it: "GenuineIntel-6-85-7 l1=32768 l2=1048576 l3=37486592". Model numbers, not the
 * brand's text: that names speeds and is often hidden by hypervisors. Used by heddle itself and by the programs it times with,
 * which may run elsewhere (--runner). */
#ifndef HD_MACHINE_H
#define HD_MACHINE_H

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>

static inline void hd_machine_cpu(char *text, size_t room)
{
    unsigned a, b, c, d;
    char vendor[13] = "unknown";
    if (!__get_cpuid(0, &a, &b, &c, &d)) { snprintf(text, room, "x86"); return; }
    memcpy(vendor, &b, 4), memcpy(vendor + 4, &d, 4), memcpy(vendor + 8, &c, 4);
    for (char *at = vendor; *at; at++) if (*at <= ' ' || *at > '~' || *at == '|') *at = '_';
    __get_cpuid(1, &a, &b, &c, &d);
    const unsigned base = a >> 8 & 15, family = base == 15 ? base + (a >> 20 & 255) : base, model = (a >> 4 & 15) | (base == 6 || base == 15 ? a >> 12 & 0xf0 : 0);
    snprintf(text, room, "%s-%u-%u-%u", vendor, family, model, a & 15);
}
#else
/* The lines that Linux prints of the first processor: implementer, part, variant and revision on Arm, uarch on RISC-V. */
static inline void hd_machine_cpu(char *text, size_t room)
{
    static const char *const keys[] = { "CPU implementer", "CPU part", "CPU variant", "CPU revision", "uarch" };
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256];
    size_t used = (size_t)snprintf(text, room, "cpu");
    for (unsigned seen = 0; file && fgets(line, sizeof line, file);)
        for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++) {
            const char *value = strchr(line, ':');
            if (seen >> i & 1 || !value || strncmp(line, keys[i], strlen(keys[i]))) continue;
            seen |= 1u << i;
            value += 1 + strspn(value + 1, " \t");
            if (used < room) used += (size_t)snprintf(text + used, room - used, "-%.*s", (int)strcspn(value, " |\n"), value);
        }
    if (file) fclose(file);
}
#endif

static inline void hd_machine_text(char *text, size_t room)
{
    char cpu[128];
    hd_machine_cpu(cpu, sizeof cpu);
    snprintf(text, room, "%s l1=%ld l2=%ld l3=%ld", cpu, sysconf(_SC_LEVEL1_DCACHE_SIZE), sysconf(_SC_LEVEL2_CACHE_SIZE), sysconf(_SC_LEVEL3_CACHE_SIZE));
}

#endif
