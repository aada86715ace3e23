/* Text to ids and back by the tokenizer that heddle emit adds to the model `gpt2`. Prints "there and back". */
#include "gpt2_tokens.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT = 4000 };

static int wrong;
static void check(const char *why, int right)
{
    if (!right) printf("%s\n", why), wrong++;
}

/* The ids as text: id by id; whatever is given out is whole characters. */
static size_t decode(const int32_t *ids, int64_t count, int keep_special, char *out)
{
    gpt2_decoder d = { .keep_special = keep_special };
    size_t bytes = 0;
    for (int64_t i = 0; i <= count; i++) {
        const size_t n = gpt2_decode(&d, i < count ? ids[i] : -1, out + bytes);
        if (n > GPT2_TOKEN_ROOM || (n && ((unsigned char)out[bytes] & 0xc0) == 0x80)) wrong++;
        bytes += n;
    }
    return bytes;
}

int main(void)
{
    gpt2_encoder *encoder = gpt2_encoder_new();
    static int32_t ids[TEXT + 2];
    static char text[TEXT], back[3 * TEXT + GPT2_TOKEN_ROOM];
    static const char mixed[] = "the weather there; gr\xc3\xbc\xc3\x9f dich \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x99\x82 the";
    check("no encoder", encoder != NULL);
    for (size_t at = 0; at < TEXT; at += sizeof mixed - 1) memcpy(text + at, mixed, TEXT - at < sizeof mixed - 1 ? TEXT - at : sizeof mixed - 1);
    size_t whole = TEXT;
    while (((unsigned char)text[whole - 1] & 0x80) != 0) whole--;      /* not within a character */
    const int64_t count = gpt2_encode(encoder, text, whole, 0, ids, TEXT);
    check("merges were not found", count > 0 && (size_t)count < whole && ids[0] == gpt2_token("the") && ids[0] == 257);
    check("text does not come back", decode(ids, count, 0, back) == whole && !memcmp(back, text, whole));

    ids[0] = -7;
    check("ids beyond the room were written, or not counted", gpt2_encode(encoder, text, whole, 0, ids, 0) == count && ids[0] == -7 && gpt2_encode(encoder, text, whole, 0, NULL, 0) == count);
    check("a text of nothing", gpt2_encode(encoder, "", 0, 0, ids, TEXT) == 0);
    check("any bytes can be encoded", gpt2_encode(encoder, "a\xff\x80z", 4, 0, ids, TEXT) == 4);
    check("bytes that are no text show as U+FFFD", decode(ids, 4, 0, back) == 8 && !memcmp(back, "a\xef\xbf\xbd\xef\xbf\xbdz", 8));

    const int32_t end = gpt2_token("<|endoftext|>");
    check("special tokens", end == 258 && gpt2_token("<|nothing|>") == -1 && gpt2_encode(encoder, "a<|endoftext|>b", 15, 0, ids, TEXT) == 3 && ids[1] == end);
    check("special tokens are shown", decode(ids, 3, 0, back) == 2 && !memcmp(back, "ab", 2));
    check("special tokens are not shown", decode(ids, 3, 1, back) == 15 && !memcmp(back, "a<|endoftext|>b", 15));
    const int32_t beyond[] = { 'a', GPT2_TOKENS, -5, 1 << 30 };
    check("ids beyond the vocabulary", decode(beyond, 4, 0, back) == 1);
    gpt2_encoder_free(encoder);
    printf(wrong ? "%d wrong\n" : "there and back\n", wrong);
    return wrong != 0;
}
