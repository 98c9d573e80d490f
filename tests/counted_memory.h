/* What the library asks for, counted: the linker sends its allocations here in tests that CMakeLists.txt lists for that. */
#ifndef DM_TESTS_COUNTED_MEMORY_H
#define DM_TESTS_COUNTED_MEMORY_H

#include <stdint.h>

typedef struct counted_memory {
    uint64_t calls;
    uint64_t bytes;   /* all together, outgrown buffers included */
    uint64_t largest; /* in one piece */
} counted_memory;

/* Since it was last set to {0}. */
extern counted_memory counted;

#endif
