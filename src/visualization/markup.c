#include "visualization/markup.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* Characters of XML 1.0, without the two that are no characters. */
static bool has_a_place(uint32_t code) {
    return code == '\t' || code == '\n' || code == '\r' || (code >= 0x20 && code != 0x7f && code != 0xfffe && code != 0xffff);
}

static const char *entity_of(uint32_t code) {
    switch (code) {
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '&':
        return "&amp;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

void dm_markup_bytes(FILE *out, const char *bytes, size_t length) {
    for (size_t at = 0; at < length;) {
        uint32_t code;
        size_t n = dm_utf8_decode(bytes + at, length - at, &code);
        const char *entity = n > 0 ? entity_of(code) : NULL;
        if (n == 0 || !has_a_place(code)) {
            fputs(replacement, out);
        } else if (entity != NULL) {
            fputs(entity, out);
        } else {
            fwrite(bytes + at, 1, n, out);
        }
        at += n > 0 ? n : 1;
    }
}

void dm_markup_text(FILE *out, const char *text) {
    dm_markup_bytes(out, text, strlen(text));
}

void dm_markup_json(FILE *out, const char *bytes, size_t length) {
    fputc('"', out);
    for (size_t at = 0; at < length;) {
        uint32_t code;
        size_t n = dm_utf8_decode(bytes + at, length - at, &code);
        if (n == 0) {
            fputs(replacement, out);
        } else if (code < 0x20 || code == 0x7f || strchr("<>&\"'\\", (int)(n == 1 ? code : ' ')) != NULL || code == 0x2028 ||
                   code == 0x2029 || code == 0xfffe || code == 0xffff) {
            fprintf(out, "\\u%04x", code);
        } else {
            fwrite(bytes + at, 1, n, out);
        }
        at += n > 0 ? n : 1;
    }
    fputc('"', out);
}

static void write_number(double value, int digits, char text[DM_NUMBER_TEXT]) {
    static const struct {
        double least;
        const char *unit;
    } units[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e4, "k"}};
    double size = fabs(value);
    if (isnan(value)) {
        snprintf(text, DM_NUMBER_TEXT, "-");
        return;
    }
    for (size_t i = 0; i < sizeof units / sizeof *units && size < 1e15; i++) {
        if (size >= units[i].least) {
            double unit = units[i].least == 1e4 ? 1e3 : units[i].least;
            snprintf(text, DM_NUMBER_TEXT, "%.*g%s", digits, value / unit, units[i].unit);
            return;
        }
    }
    if (size >= 1000.0 && size < 1e4) { /* %g would give few digits an exponent */
        snprintf(text, DM_NUMBER_TEXT, "%.0f", value);
        return;
    }
    snprintf(text, DM_NUMBER_TEXT, "%.*g", digits, value);
}

void dm_number_text(double value, char text[DM_NUMBER_TEXT]) {
    write_number(value, 4, text);
}

void dm_number_short(double value, char text[DM_NUMBER_TEXT]) {
    write_number(value, 3, text);
}

void dm_number_exact(double value, char text[DM_NUMBER_TEXT]) {
    snprintf(text, DM_NUMBER_TEXT, isnan(value) ? "-" : "%.9g", value);
}

void dm_slug(const char *text, char *out, size_t size) {
    size_t used = 0;
    for (; *text != '\0' && used + 1 < size; text++) {
        char c = *text;
        c = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
            out[used++] = c;
        } else if (used > 0 && out[used - 1] != '-') {
            out[used++] = '-';
        }
    }
    used -= used > 0 && out[used - 1] == '-';
    out[used] = '\0';
}

void dm_text_stream_begin(dm_text_stream *it) {
    *it = (dm_text_stream){0};
    it->stream = open_memstream(&it->text, &it->length);
}

bool dm_text_stream_end(dm_text_stream *it) {
    bool good = it->stream != NULL && ferror(it->stream) == 0;
    good = it->stream != NULL && fclose(it->stream) == 0 && good;
    it->stream = NULL;
    if (!good) {
        free(it->text);
        it->text = NULL;
    }
    return good;
}
