/* WAV by libsndfile (media.h). A file of its own, so that only programs whose tokens are sound carry the library. */
#include "media.h"

#include <sndfile.h>
#include <stdlib.h>
#include <string.h>

/* A file in memory. */
typedef struct store { unsigned char *data; sf_count_t bytes, room, at; bool full; } store;

static sf_count_t store_length(void *user) { return ((store *)user)->bytes; }
static sf_count_t store_tell(void *user) { return ((store *)user)->at; }

static sf_count_t store_seek(sf_count_t offset, int whence, void *user)
{
    store *s = user;
    const sf_count_t to = offset + (whence == SEEK_CUR ? s->at : whence == SEEK_END ? s->bytes : 0);
    if (to < 0) return -1;
    return s->at = to;
}

static sf_count_t store_read(void *to, sf_count_t count, void *user)
{
    store *s = user;
    if (count > s->bytes - s->at) count = s->bytes - s->at;
    if (count <= 0) return 0;
    memcpy(to, s->data + s->at, (size_t)count);
    s->at += count;
    return count;
}

static sf_count_t store_write(const void *from, sf_count_t count, void *user)
{
    store *s = user;
    if (s->at + count > s->room) {
        const sf_count_t room = 2 * (s->at + count);
        unsigned char *data = realloc(s->data, (size_t)room);
        if (!data) {
            s->full = true;
            return 0;
        }
        memset(data + s->bytes, 0, (size_t)(room - s->bytes));
        s->data = data;
        s->room = room;
    }
    memcpy(s->data + s->at, from, (size_t)count);
    s->at += count;
    if (s->at > s->bytes) s->bytes = s->at;
    return count;
}

static SF_VIRTUAL_IO in_memory = { store_length, store_seek, store_read, store_write, store_tell };

static const char *sound_write(const int16_t *samples, int64_t count, int64_t rate, bool eight_bits, void **file, size_t *bytes)
{
    store s = { 0 };
    SF_INFO info = { .samplerate = (int)rate, .channels = 1, .format = SF_FORMAT_WAV | (eight_bits ? SF_FORMAT_PCM_U8 : SF_FORMAT_PCM_16) };
    SNDFILE *sound = sf_open_virtual(&in_memory, SFM_WRITE, &info, &s);
    if (!sound) return sf_strerror(NULL);
    const bool whole = sf_write_short(sound, samples, count) == count;
    const char *error = whole ? NULL : sf_strerror(sound);
    sf_close(sound);
    if (s.full) error = "out of memory";
    if (error) free(s.data);
    *file = s.data;
    *bytes = (size_t)s.bytes;
    return error;
}

static const char *sound_read(const void *file, size_t bytes, int16_t **samples, int64_t *count, int64_t *rate)
{
    store s = { .data = (unsigned char *)(uintptr_t)file, .bytes = (sf_count_t)bytes };      /* is not written to */
    SF_INFO info = { 0 };
    SNDFILE *sound = sf_open_virtual(&in_memory, SFM_READ, &info, &s);
    if (!sound) return sf_strerror(NULL);
    enum { FRAMES = 4096 };
    int16_t *all = NULL, *part = malloc((size_t)(FRAMES * info.channels) * sizeof *part);
    int64_t got = 0, room = 0;
    const char *error = part ? NULL : "out of memory";
    for (sf_count_t n; !error && (n = sf_readf_short(sound, part, FRAMES)) > 0; got += n) {
        if (got + n > room) {
            int16_t *more = realloc(all, (size_t)(room = 2 * (got + n)) * sizeof *all);
            if (!more) {
                error = "out of memory";
                break;
            }
            all = more;
        }
        for (sf_count_t i = 0; i < n; i++) all[got + i] = part[i * info.channels];
    }
    if (!error && sf_error(sound)) error = sf_strerror(sound);
    free(part);
    sf_close(sound);
    if (error) free(all);
    *samples = all, *count = got, *rate = info.samplerate;
    return error;
}

const hd_sound_library hd_sound_sndfile = { sound_write, sound_read };
