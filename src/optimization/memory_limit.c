/*
 * Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of Linux; proc(5) for /proc/self/cgroup and
 * mountinfo. Every group above a process limits it too, so all of them are asked.
 */
#include "optimization/memory_limit.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/pseudo_file.h"

/* What the two versions of control groups call the same things. */
typedef struct group_version {
    const char *type;       /* of the mount */
    const char *controller; /* among those of the hierarchy; NULL: there is one hierarchy for all */
    const char *limits[2];  /* beyond the second one the kernel slows a group down until it has given back */
    const char *usage;
    const char *file_pages[2]; /* in memory.stat: what would make room when asked */
} group_version;

static const group_version versions[] = {
    {"cgroup2", NULL, {"memory.max", "memory.high"}, "memory.current", {"inactive_file", "active_file"}},
    {"cgroup", "memory", {"memory.limit_in_bytes", NULL}, "memory.usage_in_bytes", {"total_inactive_file", "total_active_file"}},
};

/* Whether a comma-separated list has the word. */
static bool lists(const char *list, const char *word) {
    size_t length = strlen(word);
    for (const char *at = list; *at != '\0'; at += strcspn(at, ","), at += *at == ',') {
        if (strcspn(at, ",") == length && strncmp(at, word, length) == 0) {
            return true;
        }
    }
    return false;
}

/* The path of this process's group in the version's hierarchy: of a line "ID:CONTROLLERS:PATH". */
static bool find_group(const char *root, const group_version *version, char *path) {
    FILE *file = dm_pseudo_open(root, "/proc/self/cgroup");
    char line[PATH_MAX + 256];
    bool found = false;
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        char *controllers = strchr(line, ':'), *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL) {
            continue;
        }
        *group++ = '\0';
        controllers++;
        group[strcspn(group, "\n")] = '\0';
        found = version->controller == NULL ? controllers[0] == '\0' : lists(controllers, version->controller);
        snprintf(path, PATH_MAX, "%s", group);
    }
    if (file != NULL) {
        fclose(file);
    }
    return found;
}

/* Where the hierarchy is mounted, and which group that mount shows as its top. */
static bool find_mount(const char *root, const group_version *version, char *at, char *top) {
    FILE *file = dm_pseudo_open(root, "/proc/self/mountinfo");
    char line[2 * PATH_MAX], type[32], options[256];
    bool found = false;
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        const char *rest = strstr(line, " - "); /* optional fields of any number are before it */
        found = rest != NULL && sscanf(line, "%*d %*d %*s %4095s %4095s", top, at) == 2 &&
                sscanf(rest, " - %31s %*s %255s", type, options) == 2 && strcmp(type, version->type) == 0 &&
                (version->controller == NULL || lists(options, version->controller));
    }
    if (file != NULL) {
        fclose(file);
    }
    return found;
}

/* The folder of the process's group. In a container the path may be that of the host, or lead out of what is mounted: then the
 * mount's top is the nearest that can be seen. */
static void join_group(const char *at, const char *top, const char *group, char *folder) {
    size_t length = strcmp(top, "/") == 0 ? 0 : strlen(top);
    bool below = strncmp(group, top, length) == 0 && (group[length] == '/' || group[length] == '\0');
    const char *rest = below ? group + length : "";
    size_t before = strlen(at), after = strlen(rest);
    if (before + after >= PATH_MAX || strncmp(rest, "/..", 3) == 0 || strcmp(rest, "/") == 0) {
        after = 0;
    }
    memcpy(folder, at, before);
    memcpy(folder + before, rest, after);
    folder[before + after] = '\0';
}

static bool group_number(const char *root, const char *folder, const char *name, const char *key, uint64_t *out) {
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return key != NULL ? dm_pseudo_value(root, path, key, out) : dm_pseudo_number(root, path, out);
}

/* The limit of one group, if it leaves less than those seen so far. */
static void look_at_group(const char *root, const group_version *version, const char *folder, dm_memory *out, uint64_t *least) {
    uint64_t limit = UINT64_MAX, used;
    for (int i = 0; i < 2 && version->limits[i] != NULL; i++) {
        uint64_t one;
        limit = group_number(root, folder, version->limits[i], NULL, &one) && one < limit ? one : limit;
    }
    if ((out->total > 0 && limit >= out->total) || limit >= INT64_MAX / 2 || /* version 1 has no word for "none" */
        !group_number(root, folder, version->usage, NULL, &used)) {
        return;
    }
    for (int i = 0; i < 2; i++) {
        uint64_t pages;
        group_number(root, folder, "memory.stat", version->file_pages[i], &pages);
        used = used > pages ? used - pages : 0;
    }
    uint64_t left = limit > used ? limit - used : 0;
    if (left < *least) {
        *least = left;
        out->limit = limit;
        out->used = used;
    }
}

/* The group of the process and all above it, up to what is mounted. */
static void look_at_groups(const char *root, const group_version *version, dm_memory *out, uint64_t *least) {
    char group[PATH_MAX], at[PATH_MAX], top[PATH_MAX], folder[PATH_MAX];
    if (!find_group(root, version, group) || !find_mount(root, version, at, top)) {
        return;
    }
    join_group(at, top, group, folder);
    for (char *slash; strlen(folder) >= strlen(at); *slash = '\0') {
        look_at_group(root, version, folder, out, least);
        slash = strrchr(folder, '/');
        if (slash == NULL || slash == folder) {
            return;
        }
    }
}

static void read_machine(const char *root, dm_memory *out) {
    static const char meminfo[] = "/proc/meminfo";
    dm_pseudo_value(root, meminfo, "MemTotal", &out->total);
    if (!dm_pseudo_value(root, meminfo, "MemAvailable", &out->available)) {
        dm_pseudo_value(root, meminfo, "MemFree", &out->available); /* before Linux 3.14: a safe part of it */
    }
    out->total *= 1024; /* "kB" there are KiB */
    out->available *= 1024;
}

void dm_memory_limit(const char *root, dm_memory *out) {
    *out = (dm_memory){0};
    read_machine(root, out);
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        look_at_groups(root, &versions[i], out, &least);
    }
    out->usable = out->total > 0 && out->available < least ? out->available : least < UINT64_MAX ? least : 0;
}
