/* Is a text well-formed XML, as far as pages and pictures go? An independent reader, as strict as it is small: elements nest,
 * attributes are quoted and come once, only known entities, one root, no bytes that are no UTF-8. Not: name spaces, DTDs. */
#ifndef DM_TESTS_XML_CHECK_H
#define DM_TESTS_XML_CHECK_H

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "base/utf8.h"

enum { XML_DEPTH = 64, XML_NAME = 64 };

typedef struct xml_reader {
    const char *at, *end;
    char open[XML_DEPTH][XML_NAME];
    size_t depth, elements, roots;
} xml_reader;

static inline bool xml_starts(const xml_reader *x, const char *text) {
    return (size_t)(x->end - x->at) >= strlen(text) && memcmp(x->at, text, strlen(text)) == 0;
}

/* Past the next `text`; false where there is none. */
static inline bool xml_skip_past(xml_reader *x, const char *text) {
    while (x->at < x->end && !xml_starts(x, text)) {
        x->at++;
    }
    x->at += x->at < x->end ? strlen(text) : 0;
    return x->at <= x->end && x->at[-1] == text[strlen(text) - 1];
}

static inline bool xml_name(xml_reader *x, char name[XML_NAME]) {
    size_t n = 0;
    while (x->at < x->end && n + 1 < XML_NAME && (isalnum((unsigned char)*x->at) != 0 || strchr("-_:", *x->at) != NULL)) {
        name[n++] = *x->at++;
    }
    name[n] = '\0';
    return n > 0;
}

/* One character of text or of an attribute, an entity included. */
static inline bool xml_character(xml_reader *x) {
    static const char *const entities[] = {"&lt;", "&gt;", "&amp;", "&quot;", "&#39;"};
    uint32_t code;
    for (size_t i = 0; i < sizeof entities / sizeof *entities; i++) {
        if (xml_starts(x, entities[i])) {
            x->at += strlen(entities[i]);
            return true;
        }
    }
    size_t n = dm_utf8_decode(x->at, (size_t)(x->end - x->at), &code);
    x->at += n;
    return n > 0 && code != '&' && code != '<' && (code >= 0x20 || code == '\n' || code == '\t') && code != 0xfffe &&
           code != 0xffff;
}

static inline void xml_spaces(xml_reader *x) {
    while (x->at < x->end && isspace((unsigned char)*x->at) != 0) {
        x->at++;
    }
}

static inline bool xml_attributes(xml_reader *x) {
    char names[16][XML_NAME];
    size_t n = 0;
    for (xml_spaces(x); x->at < x->end && *x->at != '>' && *x->at != '/'; xml_spaces(x)) {
        if (n == 16 || !xml_name(x, names[n]) || !xml_starts(x, "=\"")) {
            return false;
        }
        for (size_t i = 0; i < n; i++) {
            if (strcmp(names[i], names[n]) == 0) {
                return false;
            }
        }
        n++;
        for (x->at += 2; x->at < x->end && *x->at != '"';) {
            if (!xml_character(x)) {
                return false;
            }
        }
        x->at++;
    }
    return x->at < x->end;
}

static inline bool xml_element(xml_reader *x) {
    char name[XML_NAME];
    x->at++;
    if (*x->at == '/') {
        x->at++;
        return xml_name(x, name) && *x->at++ == '>' && x->depth > 0 && strcmp(x->open[--x->depth], name) == 0;
    }
    if (!xml_name(x, name) || !xml_attributes(x) || x->depth == XML_DEPTH) {
        return false;
    }
    x->elements++;
    x->roots += x->depth == 0;
    if (*x->at == '/') {
        x->at++;
    } else {
        strcpy(x->open[x->depth++], name);
    }
    return *x->at++ == '>';
}

/* Elements of a well-formed text that ends with a NUL after `size` bytes; 0 for anything else. *where is how far it is fine. */
static inline size_t xml_check(const char *text, size_t size, size_t *where) {
    xml_reader x = {.at = text, .end = text + size};
    bool good = true;
    while (good && x.at < x.end) {
        *where = (size_t)(x.at - text);
        if (xml_starts(&x, "<?") || xml_starts(&x, "<!DOCTYPE")) {
            good = x.depth == 0 && x.elements == 0 && xml_skip_past(&x, ">");
        } else if (xml_starts(&x, "<![CDATA[")) {
            good = x.depth > 0 && xml_skip_past(&x, "]]>");
        } else if (*x.at == '<') {
            good = xml_element(&x);
        } else if (x.depth == 0) {
            good = isspace((unsigned char)*x.at++) != 0;
        } else {
            good = xml_character(&x);
        }
    }
    return good && x.depth == 0 && x.roots == 1 ? x.elements : 0;
}

/* How often `word` is in a text. */
static inline size_t count_of(const char *text, const char *word) {
    size_t count = 0;
    for (const char *at = strstr(text, word); at != NULL; at = strstr(at + 1, word)) {
        count++;
    }
    return count;
}

#endif
