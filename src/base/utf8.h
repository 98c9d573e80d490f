/* UTF-8 as RFC 3629 defines it: no overlong forms, no surrogates, nothing past U+10FFFF. */
#ifndef DM_BASE_UTF8_H
#define DM_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at the start of `text`, 1 to 4, and its code point; 0 if the bytes are no character. */
size_t dm_utf8_decode(const char *text, size_t length, uint32_t *code);
/* Writes a code point up to U+10FFFF; returns the bytes written. */
size_t dm_utf8_encode(uint32_t code, char out[4]);
/* Bytes at the start of `text` that are whole characters. */
size_t dm_utf8_valid_prefix(const char *text, size_t length);
/* Bytes of the character that begins with `first`; 1 for a byte that begins none. */
size_t dm_utf8_length(char first);
/* Bytes at the end of text[length] that begin a character of which the rest is still to come. */
size_t dm_utf8_unfinished(const char *text, size_t length);
/* Copies `text` with U+FFFD in place of every byte that belongs to no character; returns the bytes written, at most
 * 3 * length. */
size_t dm_utf8_mend(const char *text, size_t length, char *out);

/* Characters that no text needs: they move a terminal's cursor, or begin another line. */
static inline bool dm_utf8_is_control(uint32_t code) {
    return code < 0x20 || (code >= 0x7f && code < 0xa0);
}

#endif
