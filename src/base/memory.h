/* Memory whose sizes are checked, aligned for vector loads. */
#ifndef DM_BASE_MEMORY_H
#define DM_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DM_ALIGNMENT 64

/* Zeroed, 64-byte aligned memory for count * size bytes; NULL when the product
 * overflows or memory is short (dm_error_message() is then set). Asking for
 * nothing gives a valid pointer. Free with dm_free(). */
void *dm_alloc(size_t count, size_t size);
void dm_free(void *pointer);

/* Resident bytes of this process now; 0 where the system does not tell. */
uint64_t dm_rss(void);

/* *out = a * b, a + b; false on overflow. */
bool dm_mul_size(size_t a, size_t b, size_t *out);
bool dm_add_size(size_t a, size_t b, size_t *out);

#endif
