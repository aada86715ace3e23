/* Weights at build time (weights.h). The loader is the programs' own: it reads the table that the program will have. */
#include "weights.h"
#include "../../runtime/app/weights.h"
#include "../../runtime/app/packed.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const hd_model_info *hd_model_chosen;      /* what the loader checks against */

bool hd_weights_in_folder(const char *path)
{
    DIR *dir = opendir(path);
    bool found = false;
    for (struct dirent *entry; dir && !found && (entry = readdir(dir)); ) {
        const char *end = strstr(entry->d_name, ".safetensors");
        found = end && (!end[12] || !strcmp(end + 12, ".index.json"));
    }
    if (dir) closedir(dir);
    return found;
}

static void describe(const hd_weights_layout *layout)
{
    const hd_graph *g = layout->graph;
    hd_weight *weight = HD_NEW_ARRAY(hd_weight, g->nodes + 1);
    hd_model_info *info = HD_NEW(hd_model_info);
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        if (n->op != HD_OP_param || n->attr.param.role != HD_WEIGHT) continue;
        hd_weight *w = &weight[info->weights++];
        *w = (hd_weight){ .name = n->name, .rank = n->shape.rank, .offset = (size_t)layout->offset[i], .init = (int)n->attr.param.init.kind, .scale = n->attr.param.init.scale };
        for (int k = 0; k < n->shape.rank; k++) w->size[k] = n->shape.size[k];
    }
    info->name = g->name, info->weight = weight, info->weights_bytes = (size_t)layout->weights_bytes;
    hd_model_chosen = info;
}

static hd_safetensors *open_checked(const hd_weights_layout *layout, const char *path, const hd_st_tensor ***found)
{
    describe(layout);
    hd_safetensors *file = hd_safetensors_open(path);
    *found = hd_weights_match(file, "");
    for (int i = 0; i < hd_model.weights; i++)
        if (!hd_safetensors_finite((*found)[i])) {
            hd_weights_warn(path, hd_model.weight[i].name);
            break;
        }
    return file;
}

void hd_weights_check(const hd_weights_layout *layout, const char *path)
{
    const hd_st_tensor **found;
    hd_safetensors_close(open_checked(layout, path, &found));
}

/* What the packing entry of the program does (templates/pack.c.tmpl), here for any target. */
static void pack(const hd_packed_matrix *b, const unsigned char *weights, unsigned char *packed)
{
    const float *in = (const float *)(const void *)(weights + b->from);
    float *out = (float *)(void *)(packed + b->to);
    for (int64_t first = 0; first < b->n; first += b->nr)
        for (int64_t k = 0; k < b->k; k++, out += b->nr)
            for (int64_t c = 0; c < b->nr; c++)
                out[c] = first + c >= b->n ? 0 : b->transposed ? in[(first + c) * b->ld + k] : in[k * b->ld + first + c];
}

/* Room in the file for all of it, so that writing through the mapping cannot meet a full disk. */
static unsigned char *map_output(int fd, const char *path, size_t bytes)
{
    const int error = posix_fallocate(fd, 0, (off_t)bytes);
    if (error) hd_app_fail("%s: cannot be written: %s; %.1f MB are needed", path, strerror(error), (double)bytes / 1e6);
    void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (start == MAP_FAILED) hd_app_fail("%s: cannot be mapped: %s", path, strerror(errno));
    return start;
}

static void write_areas(const hd_weights_layout *layout, const hd_st_tensor *const *found, unsigned char *weights, unsigned char *packed)
{
    hd_weights_copy(found, weights);
    for (int i = 0; i < layout->matrices; i++) pack(&layout->matrix[i], weights, packed);
}

void hd_weights_pack_file(const hd_weights_layout *layout, const char *path, const char *out)
{
    const hd_st_tensor **found;
    hd_safetensors *file = open_checked(layout, path, &found);
    hd_packed_header h = { .version = HD_PACKED_VERSION, .weights_hash = layout->weights_hash, .panels_hash = layout->panels_hash,
                           .weights_at = HD_PACKED_HEADER_BYTES, .weights_bytes = (uint64_t)layout->weights_bytes, .packed_bytes = (uint64_t)layout->packed_bytes };
    memcpy(h.magic, HD_PACKED_MAGIC, sizeof h.magic);
    h.packed_at = hd_packed_page(h.weights_at + h.weights_bytes);
    h.file_bytes = h.packed_at + h.packed_bytes;
    strncpy(h.model, layout->graph->name, HD_PACKED_NAME - 1);
    strncpy(h.target, layout->target, HD_PACKED_NAME - 1);
    hd_file_writer writer;
    hd_file_begin(&writer, out);
    unsigned char *start = map_output(writer.fd, out, (size_t)h.file_bytes);
    memcpy(start, &h, sizeof h);
    write_areas(layout, found, start + h.weights_at, start + h.packed_at);
    munmap(start, (size_t)h.file_bytes);
    hd_safetensors_close(file);
    hd_file_commit(&writer);
}

#if defined(__x86_64__)
enum { MACHINE = EM_X86_64, PLACE = SHF_ALLOC | 0x10000000 };      /* SHF_X86_64_LARGE: code never has to reach across it */
#define SECTION ".lrodata"
#else
enum { MACHINE = EM_AARCH64, PLACE = SHF_ALLOC };
#define SECTION ".rodata"
#endif

/* ELF: the header, both areas from a page on, then symbols, sections and names. No compiler or assembler has to read what it holds. */
void hd_weights_object(const hd_weights_layout *layout, const char *path, const char *out)
{
    enum { BEFORE = HD_PACKED_HEADER_BYTES, TEXTS = 7, TEXT = 256 };
    typedef struct tail { Elf64_Sym symbol[3]; Elf64_Shdr section[5]; char name[TEXTS][TEXT]; } tail;
    const hd_st_tensor **found;
    hd_safetensors *file = open_checked(layout, path, &found);
    const uint64_t packed_at = hd_packed_page((uint64_t)layout->weights_bytes), bytes = packed_at + (uint64_t)layout->packed_bytes, tail_at = BEFORE + (bytes + 63) / 64 * 64;
    const size_t file_bytes = (size_t)tail_at + sizeof(tail);
    const int fd = open(out, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) hd_app_fail("%s: cannot be written: %s", out, strerror(errno));
    unsigned char *start = map_output(fd, out, file_bytes);
    write_areas(layout, found, start + BEFORE, start + BEFORE + packed_at);
    hd_safetensors_close(file);

    const char *const name[TEXTS] = { "", SECTION ".weights", ".symtab", ".strtab", ".note.GNU-stack", hd_format("%s_weights", layout->graph->name), hd_format("%s_packed", layout->graph->name) };
    const uint64_t huge = 2 << 20, align = bytes >= 8 * huge ? huge : HD_PACKED_HEADER_BYTES;      /* of large ones, huge pages of the page cache can be mapped */
    tail *t = (tail *)(void *)(start + tail_at);
    *t = (tail){ .section = {
        [1] = { .sh_type = SHT_PROGBITS, .sh_flags = PLACE, .sh_offset = BEFORE, .sh_size = bytes, .sh_addralign = align },
        [2] = { .sh_type = SHT_SYMTAB, .sh_offset = tail_at + offsetof(tail, symbol), .sh_size = sizeof t->symbol, .sh_link = 3, .sh_info = 1, .sh_addralign = 8, .sh_entsize = sizeof(Elf64_Sym) },
        [3] = { .sh_type = SHT_STRTAB, .sh_offset = tail_at + offsetof(tail, name), .sh_size = sizeof t->name, .sh_addralign = 1 },
        [4] = { .sh_type = SHT_PROGBITS, .sh_offset = tail_at, .sh_addralign = 1 },
    } };
    for (int i = 0; i < TEXTS; i++) {
        if (strlen(name[i]) >= TEXT) hd_app_fail("%s: the model's name is longer than a symbol in it can be", layout->graph->name);
        strcpy(t->name[i], name[i]);
        if (i < 5) t->section[i].sh_name = (Elf64_Word)(i * TEXT);
        else t->symbol[i - 4] = (Elf64_Sym){ .st_name = (Elf64_Word)(i * TEXT), .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT), .st_other = STV_HIDDEN, .st_shndx = 1, .st_value = i == 5 ? 0 : packed_at };
    }
    *(Elf64_Ehdr *)(void *)start = (Elf64_Ehdr){ .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT }, .e_type = ET_REL, .e_machine = MACHINE, .e_version = EV_CURRENT,
                                                 .e_shoff = tail_at + offsetof(tail, section), .e_ehsize = sizeof(Elf64_Ehdr), .e_shentsize = sizeof(Elf64_Shdr), .e_shnum = 5, .e_shstrndx = 3 };
    munmap(start, file_bytes);
    close(fd);
}
