/* GPT-2's names for bytes: vocabularies write each byte as one printable character, so that any token is readable text. */
#ifndef DM_MODEL_BYTE_MAP_H
#define DM_MODEL_BYTE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Writes the character (UTF-8) that stands for `byte`; returns its bytes, 1 or 2. */
size_t dm_byte_name(uint8_t byte, char out[4]);

/* Turns a token's text back into the bytes that it stands for; `bytes` has room for `length`. Returns how many, or
 * false when a character of the text stands for no byte. */
bool dm_bytes_of_text(const char *text, size_t length, char *bytes, size_t *n);

#endif
