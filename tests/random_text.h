/* Random text of the kinds that tokenizers treat in their own ways, invalid UTF-8 included. */
#ifndef DM_TEST_RANDOM_TEXT_H
#define DM_TEST_RANDOM_TEXT_H

#include <string.h>

#include "base/random.h"
#include "base/utf8.h"

/* Appends a few bytes at most to text[0..at); returns the new length. */
static inline size_t random_piece(dm_random *random, char *text, size_t at) {
    static const char *const pieces[] = {
        " ",       " ",    "  ",   "\n",   "\t",    "'",        "s",        "'s",        "'ll",          "'re",
        "a",       "Z",    "word", "0",    "42",    "!",        "--",       "\r",        "\v",           "\f",
        "\0",      "\x1c", "\x7f", "`",    "\x85",  "\xc2\xa0", "'v",       "_",         "'S",           "'lL",
        "'RE",     "'x",   "/",    "\r\n", "12345", "WoRD",     "\xc3\x89", "e\xcc\x81", "\xe4\xb8\xad", "\xe3\x81\x82",
        "\xc2\xb2"};
    uint32_t code;
    char *out = text + at;
    switch (dm_random_next(random) % 8) {
    case 0:
        code = (uint32_t)(dm_random_next(random) % 0x3100); /* most scripts and spaces */
        break;
    case 1:
        code = (uint32_t)(dm_random_next(random) % 0x110000);
        break;
    case 2: {
        static const uint32_t spaces[] = {0x85,   0xa0,   0x1680, 0x180e, 0x2000, 0x200a,
                                          0x200b, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000};
        code = spaces[dm_random_next(random) % 12];
        break;
    }
    case 3:
        *out = (char)dm_random_next(random); /* mostly invalid */
        return at + 1;
    default: {
        const char *piece = pieces[dm_random_next(random) % (sizeof pieces / sizeof *pieces)];
        size_t length = *piece != '\0' ? strlen(piece) : 1;
        memcpy(out, piece, length);
        return at + length;
    }
    }
    return at + dm_utf8_encode(code, out);
}

/* Up to `wanted` bytes and a few more. */
static inline size_t random_text(dm_random *random, char *text, size_t wanted) {
    size_t length = 0;
    while (length < wanted) {
        length = random_piece(random, text, length);
    }
    return length;
}

#endif
