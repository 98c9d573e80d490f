#include "counted_memory.h"

#include <stddef.h>

counted_memory counted;

static void note(size_t size) {
    counted.calls++;
    counted.bytes += size;
    counted.largest = size > counted.largest ? size : counted.largest;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void *__wrap_malloc(size_t size) {
    note(size);
    return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size) {
    note(count * size);
    return __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size) {
    note(size);
    return __real_realloc(old, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size) {
    note(size);
    return __real_aligned_alloc(alignment, size);
}
