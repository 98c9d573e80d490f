#include "model/byte_map.h"

#include "base/utf8.h"

/* Printable Latin-1 characters stand for themselves; the other 68 bytes, in order, are U+0100 to U+0143. */
enum { FIRST_OTHER = 0x100, CONTROLS = 33, AFTER_TILDE = 34 };

static uint32_t code_of(uint8_t byte) {
    if (byte < '!') {
        return FIRST_OTHER + byte;
    }
    if (byte > '~' && byte < 0xa1) {
        return FIRST_OTHER + CONTROLS + (uint32_t)(byte - 0x7f);
    }
    return byte == 0xad ? FIRST_OTHER + CONTROLS + AFTER_TILDE : byte;
}

static int byte_of(uint32_t code) {
    if (code < FIRST_OTHER) {
        return code_of((uint8_t)code) == code ? (int)code : -1;
    }
    code -= FIRST_OTHER;
    if (code < CONTROLS) {
        return (int)code;
    }
    code -= CONTROLS;
    if (code < AFTER_TILDE) {
        return (int)code + 0x7f;
    }
    return code == AFTER_TILDE ? 0xad : -1;
}

size_t dm_byte_name(uint8_t byte, char out[4]) {
    return dm_utf8_encode(code_of(byte), out);
}

bool dm_bytes_of_text(const char *text, size_t length, char *bytes, size_t *n) {
    *n = 0;
    for (size_t at = 0; at < length;) {
        uint32_t code;
        size_t step = dm_utf8_decode(text + at, length - at, &code);
        int byte = step > 0 ? byte_of(code) : -1;
        if (byte < 0) {
            return false;
        }
        bytes[(*n)++] = (char)byte;
        at += step;
    }
    return true;
}
