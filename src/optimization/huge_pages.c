/* Sources: Documentation/admin-guide/mm/transhuge.rst and hugetlbpage.rst of Linux. */
#include "optimization/huge_pages.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pseudo_file.h"

#define TRANSPARENT "/sys/kernel/mm/transparent_hugepage/"
#define RESERVED "/sys/kernel/mm/hugepages"

/* The word in brackets of a line such as "always [madvise] never". */
static void read_choice(const char *root, const char *path, char *word, size_t size) {
    char line[128];
    word[0] = '\0';
    dm_pseudo_line(root, path, line, sizeof line);
    const char *open = strchr(line, '['), *close = open != NULL ? strchr(open, ']') : NULL;
    if (close != NULL) {
        snprintf(word, size, "%.*s", (int)(close - open - 1), open + 1);
    }
}

static int by_bytes(const void *a, const void *b) {
    uint64_t x = ((const dm_huge_pool *)a)->bytes, y = ((const dm_huge_pool *)b)->bytes;
    return (x > y) - (x < y);
}

static uint64_t pool_number(const char *root, uint64_t kib, const char *name) {
    char path[128];
    uint64_t number;
    snprintf(path, sizeof path, RESERVED "/hugepages-%" PRIu64 "kB/%s", kib, name);
    dm_pseudo_number(root, path, &number);
    return number;
}

/* A folder for each size, hugepages-2048kB for example. */
static void read_pools(const char *root, dm_huge_pages *out) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s" RESERVED, root);
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return;
    }
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL && out->n_pools < DM_HUGE_POOLS;) {
        uint64_t kib;
        if (sscanf(entry->d_name, "hugepages-%" SCNu64 "kB", &kib) == 1 && kib > 0 && kib <= UINT64_MAX / 1024) {
            out->pools[out->n_pools++] = (dm_huge_pool){.bytes = kib * 1024,
                                                        .total = pool_number(root, kib, "nr_hugepages"),
                                                        .free = pool_number(root, kib, "free_hugepages")};
        }
    }
    closedir(folder);
    qsort(out->pools, (size_t)out->n_pools, sizeof *out->pools, by_bytes);
}

void dm_huge_pages_read(const char *root, dm_huge_pages *out) {
    *out = (dm_huge_pages){0};
    read_choice(root, TRANSPARENT "enabled", out->enabled, sizeof out->enabled);
    read_choice(root, TRANSPARENT "defrag", out->defrag, sizeof out->defrag);
    dm_pseudo_number(root, TRANSPARENT "hpage_pmd_size", &out->bytes);
    read_pools(root, out);
}
