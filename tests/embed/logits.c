/* logits text.packed OUT: writes the logits of the tokens 0, 1, 2, ... of sequence 0, by one thread. */
#include "text.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

int main(int argc, char **argv)
{
    struct stat s;
    const int file = argc == 3 ? open(argv[1], O_RDONLY) : -1;
    if (file < 0 || fstat(file, &s)) return 2;
    char *at = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (at == MAP_FAILED || text_check_packed(at, (size_t)s.st_size)) return 3;
    text_memory memory = { .weights = at + TEXT_FILE_WEIGHTS, .packed = at + TEXT_FILE_PACKED, .scratch_bytes = TEXT_FORWARD_SCRATCH_BYTES + TEXT_FORWARD_THREAD_BYTES };
    memory.scratch = aligned_alloc(64, (memory.scratch_bytes + 63) / 64 * 64);
    static int32_t tokens[TEXT_BATCH * TEXT_LENGTH];
    static float logits[TEXT_BATCH * TEXT_LENGTH * TEXT_VOCAB];
    for (int i = 0; i < TEXT_LENGTH; i++) tokens[i] = i;
    const int error = text_forward(&memory, NULL, tokens, logits, 1, 0);
    if (error) return fprintf(stderr, "%s\n", text_error(error)), 4;
    FILE *out = fopen(argv[2], "wb");
    if (!out || fwrite(logits, sizeof *logits, TEXT_LENGTH * TEXT_VOCAB, out) != TEXT_LENGTH * TEXT_VOCAB || fclose(out)) return 5;
    free(memory.scratch);
    return 0;
}
