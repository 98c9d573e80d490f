#include "base/utf8.h"

#include <string.h>

static bool continues(uint8_t byte) {
    return (byte & 0xc0) == 0x80;
}

size_t dm_utf8_decode(const char *text, size_t length, uint32_t *code) {
    const uint8_t *s = (const uint8_t *)text;
    if (length >= 1 && s[0] < 0x80) {
        *code = s[0];
        return 1;
    }
    if (length >= 2 && s[0] >= 0xc2 && s[0] <= 0xdf && continues(s[1])) {
        *code = (uint32_t)(s[0] & 0x1f) << 6 | (s[1] & 0x3f);
        return 2;
    }
    if (length >= 3 && (s[0] & 0xf0) == 0xe0 && continues(s[1]) && continues(s[2])) {
        *code = (uint32_t)(s[0] & 0x0f) << 12 | (uint32_t)(s[1] & 0x3f) << 6 | (s[2] & 0x3f);
        return *code >= 0x800 && (*code < 0xd800 || *code > 0xdfff) ? 3 : 0;
    }
    if (length >= 4 && (s[0] & 0xf8) == 0xf0 && continues(s[1]) && continues(s[2]) && continues(s[3])) {
        *code = (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3f) << 12 | (uint32_t)(s[2] & 0x3f) << 6 | (s[3] & 0x3f);
        return *code >= 0x10000 && *code <= 0x10ffff ? 4 : 0;
    }
    return 0;
}

size_t dm_utf8_encode(uint32_t code, char out[4]) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

size_t dm_utf8_valid_prefix(const char *text, size_t length) {
    size_t at = 0;
    for (;;) {
        uint64_t eight;
        while (length - at >= 8 && (memcpy(&eight, text + at, 8), (eight & 0x8080808080808080u) == 0)) {
            at += 8;
        }
        uint32_t code;
        size_t step = at < length ? dm_utf8_decode(text + at, length - at, &code) : 0;
        if (step == 0) {
            return at;
        }
        at += step;
    }
}

size_t dm_utf8_mend(const char *text, size_t length, char *out) {
    char *start = out;
    while (length > 0) {
        size_t whole = dm_utf8_valid_prefix(text, length);
        memcpy(out, text, whole);
        out += whole;
        if (whole < length) {
            out += dm_utf8_encode(0xfffd, out);
            whole++;
        }
        text += whole;
        length -= whole;
    }
    return (size_t)(out - start);
}

size_t dm_utf8_length(char first) {
    uint8_t byte = (uint8_t)first;
    return byte >= 0xf0 && byte < 0xf8 ? 4 : byte >= 0xe0 ? (byte < 0xf0 ? 3 : 1) : byte >= 0xc2 ? 2 : 1;
}

size_t dm_utf8_unfinished(const char *text, size_t length) {
    for (size_t back = 1; back <= 3 && back <= length; back++) {
        char byte = text[length - back];
        if (!continues((uint8_t)byte)) {
            return dm_utf8_length(byte) > back ? back : 0;
        }
    }
    return 0;
}
