/* Text that goes into XML: pages and pictures are written so that an XML parser takes them, browsers do anyway. */
#ifndef DM_VISUALIZATION_MARKUP_H
#define DM_VISUALIZATION_MARKUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* `length` bytes of anything as the content of an element or of an attribute in double quotes: markup is escaped, bytes that are
 * no UTF-8 and characters that XML has no place for become U+FFFD. */
void dm_markup_bytes(FILE *out, const char *bytes, size_t length);
void dm_markup_text(FILE *out, const char *text);
/* The same as a JSON string with its quotes, such that it may stand in a script element: no '<', '>' or '&'. */
void dm_markup_json(FILE *out, const char *bytes, size_t length);

enum { DM_NUMBER_TEXT = 32 };

/* A number for people: up to four digits that matter, 12.3k, 4.56M; "-" for NaN. */
void dm_number_text(double value, char text[DM_NUMBER_TEXT]);
/* Rounded to three digits, for labels on charts. */
void dm_number_short(double value, char text[DM_NUMBER_TEXT]);
/* As it is, for tables: up to nine digits. */
void dm_number_exact(double value, char text[DM_NUMBER_TEXT]);

/* A piece of a file's name made from any text: small letters, digits and dashes. */
void dm_slug(const char *text, char *out, size_t size);

/* Memory that a stream writes to. */
typedef struct dm_text_stream {
    FILE *stream; /* NULL: memory was short */
    char *text;
    size_t length;
} dm_text_stream;

/* Starts one; ends with dm_text_stream_end(). */
void dm_text_stream_begin(dm_text_stream *it);
/* True where all went in: `text` (NUL-terminated, the caller's to free()) and `length` are set; else text is NULL. */
bool dm_text_stream_end(dm_text_stream *it);

#endif
