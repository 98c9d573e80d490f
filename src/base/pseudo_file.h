/* Files that the kernel makes up below /proc and /sys. `root` stands before a path: "" for those of this machine. */
#ifndef DM_BASE_PSEUDO_FILE_H
#define DM_BASE_PSEUDO_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* For reading; NULL where there is none. */
FILE *dm_pseudo_open(const char *root, const char *path);
/* The first line without its newline, cut to `size` with its NUL. False where there is none. */
bool dm_pseudo_line(const char *root, const char *path, char *text, size_t size);
/* A whole number that the file begins with. False for anything else, such as the word "max". */
bool dm_pseudo_number(const char *root, const char *path, uint64_t *out);
/* The number behind `key` in a file of lines "KEY NUMBER"; a colon may follow the key. */
bool dm_pseudo_value(const char *root, const char *path, const char *key, uint64_t *out);

#endif
