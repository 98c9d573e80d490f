/* What a machine consists of, on machines described here; what may be used of its memory, on trees of /proc and /sys made here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <hwloc.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "optimization/disk_speed.h"
#include "optimization/huge_pages.h"
#include "optimization/memory_limit.h"
#include "optimization/memory_speed.h"
#include "optimization/tiers.h"
#include "optimization/topology_file.h"
#include "tiny_model.h"

static const uint64_t mib = 1 << 20, gib = 1 << 30;

/* ---- Trees of files ---- */

static char tree[64];

static int make_tree(void **state) {
    (void)state;
    snprintf(tree, sizeof tree, "/tmp/dilmodeli-tree-XXXXXX");
    return mkdtemp(tree) == NULL;
}

static int remove_tree(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", tree);
    return system(command);
}

/* Writes a file below the tree, with the folders before it. */
static void put_file(const char *path, const char *text) {
    char whole[PATH_MAX];
    snprintf(whole, sizeof whole, "%s%s", tree, path);
    char *slash = strrchr(whole, '/');
    *slash = '\0';
    assert_int_equal(dm_make_directory(whole), DM_OK);
    *slash = '/';
    FILE *file = fopen(whole, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static const char *tree_path(const char *name) {
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", tree, name);
    return path;
}

static void put_meminfo(void) {
    put_file("/proc/meminfo", "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n");
}

/* ---- Memory ---- */

static dm_memory memory_of_tree(void) {
    dm_memory memory;
    dm_memory_limit(tree, &memory);
    return memory;
}

static void memory_without_groups(void **state) {
    (void)state;
    dm_memory memory = memory_of_tree();
    assert_true(memory.total == 0 && memory.available == 0 && memory.limit == 0 && memory.usable == 0); /* nothing is known */
    put_meminfo();
    memory = memory_of_tree();
    assert_true(memory.total == 16 * gib && memory.available == 8 * gib && memory.usable == 8 * gib && memory.limit == 0);
    put_file("/proc/meminfo", "MemTotal: 16777216 kB\nMemFree: 1048576 kB\n");
    assert_true(memory_of_tree().usable == 1 * gib); /* an old kernel */
}

static void put_group_2(const char *group, const char *max, const char *high, const char *current) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
    put_file(path, max);
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.high", group);
    put_file(path, high);
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.current", group);
    put_file(path, current);
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.stat", group);
    put_file(path, "anon 7\nfile 8\ninactive_file 67108864\nactive_file 67108864\n");
}

static void groups_of_version_2(void **state) {
    (void)state;
    put_meminfo();
    put_file("/proc/self/cgroup", "0::/user.slice/job\n");
    put_file("/proc/self/mountinfo", "22 1 0:21 / /proc rw - proc proc rw\n"
                                     "35 23 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
    put_group_2("/user.slice/job", "max\n", "max\n", "1073741824\n");
    put_group_2("/user.slice", "4294967296\n", "max\n", "1073741824\n");
    dm_memory memory = memory_of_tree();
    assert_true(memory.limit == 4 * gib); /* of the group above */
    assert_true(memory.used == gib - 128 * mib);
    assert_true(memory.usable == 3 * gib + 128 * mib);
    put_group_2("/user.slice/job", "3221225472\n", "2147483648\n", "1073741824\n");
    memory = memory_of_tree();
    assert_true(memory.limit == 2 * gib && memory.usable == gib + 128 * mib); /* where the kernel begins to slow it down */
    put_group_2("/user.slice/job", "0\n", "max\n", "1073741824\n");
    memory = memory_of_tree();
    assert_true(memory.limit == 0 && memory.usable == 0);
    put_group_2("/user.slice/job", "17179869184000\n", "max\n", "1073741824\n"); /* more than there is */
    assert_true(memory_of_tree().limit == 4 * gib);
}

/* A container of version 1: the path is the host's, and the mount shows the container's group as its top. */
static void groups_of_version_1(void **state) {
    (void)state;
    put_meminfo();
    put_file("/proc/self/cgroup", "9:pids:/docker/4f\n4:cpu,memory:/docker/4f\n0::/\n");
    put_file("/proc/self/mountinfo", "31 30 0:29 /docker/4f /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"
                                     "32 30 0:30 /docker/4f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory,cpu\n");
    put_file("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n");
    put_file("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1073741824\n");
    put_file("/sys/fs/cgroup/memory/memory.stat", "inactive_file 5\ntotal_inactive_file 536870912\ntotal_active_file 0\n");
    dm_memory memory = memory_of_tree();
    assert_true(memory.limit == 2 * gib && memory.used == gib / 2 && memory.usable == 3 * gib / 2);
    put_file("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"); /* its word for none */
    assert_true(memory_of_tree().limit == 0);
    put_file("/proc/meminfo", "");
    assert_true(memory_of_tree().limit == 0 && memory_of_tree().usable == 0);
}

static void groups_that_make_no_sense(void **state) {
    (void)state;
    static const char *const groups[] = {"", "0::", "0::/../..\n", "x\n:::\n", "0::/a/../../../../../../etc\n", "4:memory\n"};
    put_meminfo();
    put_file("/proc/self/mountinfo", "35 23 0:30 /elsewhere /sys/fs/cgroup rw - cgroup2 cgroup2 rw\nx - \n - \n");
    put_group_2("", "2147483648\n", "junk\n", "18446744073709551615\n");
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        put_file("/proc/self/cgroup", groups[i]);
        dm_memory memory = memory_of_tree();
        assert_true(memory.total == 16 * gib && memory.usable <= 8 * gib);
    }
}

static void memory_of_this_machine(void **state) {
    (void)state;
    dm_memory memory;
    dm_memory_limit("", &memory);
    assert_true(memory.total > 0 && memory.usable <= memory.total);
}

/* ---- Huge pages ---- */

static void huge_pages(void **state) {
    (void)state;
    dm_huge_pages pages;
    dm_huge_pages_read(tree, &pages);
    assert_true(pages.enabled[0] == '\0' && pages.defrag[0] == '\0' && pages.bytes == 0 && pages.n_pools == 0);
    put_file("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    put_file("/sys/kernel/mm/transparent_hugepage/defrag", "always defer [defer+madvise] madvise never\n");
    put_file("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "2097152\n");
    put_file("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "1\n");
    put_file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "64\n");
    put_file("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "60\n");
    put_file("/sys/kernel/mm/hugepages/junk/free_hugepages", "60\n");
    dm_huge_pages_read(tree, &pages);
    assert_string_equal(pages.enabled, "madvise");
    assert_string_equal(pages.defrag, "defer+madvise");
    assert_true(pages.bytes == 2 * mib && pages.n_pools == 2);
    assert_true(pages.pools[0].bytes == 2 * mib && pages.pools[0].total == 64 && pages.pools[0].free == 60);
    assert_true(pages.pools[1].bytes == gib && pages.pools[1].total == 1 && pages.pools[1].free == 0);
    put_file("/sys/kernel/mm/transparent_hugepage/enabled", "[a word that is longer than any\n");
    dm_huge_pages_read(tree, &pages);
    assert_string_equal(pages.enabled, "");
}

/* ---- Hardware ---- */

static long ask_nothing(int name) {
    (void)name;
    return -1;
}

static long ask_sizes(int name) {
    switch (name) {
    case _SC_LEVEL1_DCACHE_SIZE:
        return 32 << 10;
    case _SC_LEVEL2_CACHE_SIZE:
        return 1 << 20;
    case _SC_LEVEL1_DCACHE_LINESIZE:
        return 64;
    default:
        return 0;
    }
}

static dm_hardware read_synthetic(const char *description, long (*ask)(int)) {
    const dm_hardware_source source = {.synthetic = description, .ask = ask};
    dm_hardware hardware;
    if (dm_hardware_read(&source, &hardware) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return hardware;
}

static const char two_nodes[] = "Package:2 [NUMANode(memory=64GiB)] L3Cache:1(size=32MiB) L2Cache:4(size=1MiB) "
                                "L1dCache:1(size=32KiB) Core:1 PU:2";

static void several_nodes(void **state) {
    (void)state;
    dm_hardware h = read_synthetic(two_nodes, ask_nothing);
    assert_true(h.packages == 2 && h.cores == 8 && h.threads == 16 && h.n_usable == 16);
    assert_true(h.memory == 128 * gib && h.n_nodes == 2);
    assert_true(h.nodes[1].node == 1 && h.nodes[1].bytes == 64 * gib && h.nodes[1].threads == 8);
    assert_int_equal(h.n_caches, 3);
    assert_true(h.caches[0].level == 1 && h.caches[0].bytes == 32 << 10 && h.caches[0].shared_by == 2 && h.caches[0].count == 8);
    assert_true(h.caches[2].level == 3 && h.caches[2].bytes == 32 * mib && h.caches[2].shared_by == 8 && h.caches[2].count == 2);
    for (size_t t = 0; t < 8; t++) { /* a core each, before any has two threads */
        assert_true(h.usable[t].unit[0] == (int)t && h.usable[t].unit[2] == (int)t / 4 && h.usable[t].processor == -1);
        assert_true(h.usable[t + 8].unit[0] == (int)t);
    }
    dm_hardware_free(&h);
}

static void working_sets(void **state) {
    (void)state;
    dm_hardware h = read_synthetic(two_nodes, ask_nothing);
    assert_int_equal(dm_tier_working_set(&h, 0, 1, gib), 16 << 10);
    assert_int_equal(dm_tier_working_set(&h, 0, 8, gib), 16 << 10);
    assert_int_equal(dm_tier_working_set(&h, 0, 16, gib), 8 << 10); /* two threads of a core share */
    assert_int_equal(dm_tier_working_set(&h, 1, 1, gib), 184320);   /* sqrt(32 KiB x 1 MiB) in whole pages */
    size_t third = dm_tier_working_set(&h, 2, 8, gib);              /* between 1 MiB and 8 MiB */
    assert_true(third > 2 * mib && third < 3 * mib);
    assert_int_equal(dm_tier_working_set(&h, 3, 1, 16 * gib), 256 * mib);
    assert_int_equal(dm_tier_working_set(&h, 3, 8, 16 * gib), 32 * mib);  /* four times two L3 in all */
    assert_int_equal(dm_tier_working_set(&h, 3, 1, 256 * mib), 64 * mib); /* half as much of what is short */
    assert_int_equal(dm_tier_working_set(&h, 3, 1, 100 * mib), 0);
    assert_int_equal(dm_tier_working_set(&h, 3, 1, 0), 0);
    dm_hardware_free(&h);
    h = read_synthetic("L3Cache:1(size=2MiB) L2Cache:2(size=1MiB) Core:1 PU:1", ask_nothing);
    assert_true(dm_tier_working_set(&h, 1, 1, gib) > 0);
    assert_int_equal(dm_tier_working_set(&h, 1, 2, gib), 0); /* what each has of the L3 its L2 holds as well */
    dm_hardware_free(&h);
}

static void without_third_level(void **state) {
    (void)state;
    dm_hardware h = read_synthetic("L2Cache:2(size=2MiB) L1dCache:2(size=64KiB) Core:1 PU:1", ask_nothing);
    dm_tier *tiers;
    size_t n;
    assert_int_equal(h.n_caches, 2);
    assert_int_equal(dm_tiers_list(&h, &tiers, &n), DM_OK);
    assert_int_equal(n, 3);
    assert_string_equal(tiers[1].name, "L2");
    assert_string_equal(tiers[2].name, "RAM");
    assert_true(tiers[1].shared_by == 2 && tiers[2].shared_by == 4 && isnan(tiers[2].latency_ns));
    free(tiers);
    dm_hardware_free(&h);
}

/* A virtual machine that says nothing: hwloc knows no caches, sysconf() may know sizes, or nothing either. */
static void nothing_is_told(void **state) {
    (void)state;
    dm_hardware h = read_synthetic("PU:4", ask_nothing);
    assert_true(h.n_caches == 0 && h.cores == 0 && h.threads == 4 && h.n_usable == 4 && h.processor[0] == '\0');
    assert_int_equal(dm_tier_working_set(&h, 0, 1, 4 * gib), 256 * mib); /* main memory is the only tier */
    dm_hardware_free(&h);
    h = read_synthetic("PU:4", ask_sizes);
    assert_int_equal(h.n_caches, 2);
    assert_true(h.caches[1].bytes == mib && h.caches[1].shared_by == 0 && h.caches[1].count == 0);
    assert_true(h.caches[0].line == 64 && h.usable[3].kind[0] == 0 && h.usable[3].kind[2] == -1);
    assert_int_equal(dm_tier_working_set(&h, 0, 1, gib), 16 << 10);
    assert_int_equal(dm_tier_working_set(&h, 0, 4, gib), 0); /* who shares it nobody tells */
    dm_hardware_free(&h);
    const dm_hardware_source wrong = {.synthetic = "a machine", .ask = ask_nothing};
    assert_int_equal(dm_hardware_read(&wrong, &h), DM_ERR_ARGUMENT);
    assert_true(h.n_usable == 0 && h.nodes == NULL);
}

/* The description as XML, with `to` for the first `n` places that say `from`. */
static void make_hybrid(const char *description, const char *from, const char *to, int n, char *out, size_t size) {
    hwloc_topology_t topology;
    char *xml;
    int length;
    hwloc_topology_init(&topology);
    assert_int_equal(hwloc_topology_set_synthetic(topology, description), 0);
    assert_int_equal(hwloc_topology_load(topology), 0);
    assert_int_equal(hwloc_topology_export_xmlbuffer(topology, &xml, &length, 0), 0);
    assert_true((size_t)length < size);
    memcpy(out, xml, strlen(xml) + 1);
    assert_int_equal(strlen(from), strlen(to));
    for (char *at = out; n > 0 && (at = strstr(at, from)) != NULL; n--) {
        memcpy(at, to, strlen(to));
    }
    hwloc_free_xmlbuffer(topology, xml);
    hwloc_topology_destroy(topology);
}

static void cores_that_differ(void **state) {
    (void)state;
    static char xml[1 << 16];
    make_hybrid("L2Cache:6(size=2000000) L1dCache:1(size=48000) Core:1 PU:1", "cache_size=\"48000\"", "cache_size=\"32000\"", 4,
                xml, sizeof xml);
    const dm_hardware_source source = {.xml = xml, .ask = ask_nothing};
    dm_hardware h;
    assert_int_equal(dm_hardware_read(&source, &h), DM_OK);
    assert_int_equal(h.n_caches, 3);
    assert_true(h.caches[0].bytes == 48000 && h.caches[0].count == 2 && h.caches[1].bytes == 32000 && h.caches[1].count == 4);
    assert_true(h.usable[0].kind[0] == 1 && h.usable[5].kind[0] == 0 && h.usable[0].kind[1] == 2);
    assert_int_equal(dm_tier_working_set(&h, 0, 6, gib), 20480); /* of the two that have it */
    assert_int_equal(dm_tier_working_set(&h, 1, 6, gib), 12288);
    dm_hardware_free(&h);
}

static void this_machine(void **state) {
    (void)state;
    dm_hardware h;
    assert_int_equal(dm_hardware_read(NULL, &h), DM_OK);
    assert_true(h.n_usable >= 1);
    for (int i = 1; i < h.n_caches; i++) {
        assert_true(h.caches[i].level >= h.caches[i - 1].level);
    }
    dm_hardware_free(&h);
}

/* ---- Measuring ---- */

static void memory_is_read(void **state) {
    (void)state;
    const int processors[] = {-1, 1 << 20}; /* neither can be bound to */
    dm_readers readers = {.threads = 1, .processors = processors, .bytes = 16 << 10, .line = 64, .seconds = 0.02};
    dm_memory_speed speed;
    assert_int_equal(dm_memory_speed_measure(&readers, &speed), DM_OK);
    assert_true(speed.bandwidth_gb_s > 0 && speed.latency_ns > 0 && isfinite(speed.latency_ns));
    readers.threads = 2;
    readers.bytes = 3 << 20; /* its chain, of a power of two, is longer */
    readers.line = 0;
    assert_int_equal(dm_memory_speed_measure(&readers, &speed), DM_OK);
    assert_true(speed.bandwidth_gb_s > 0 && isnan(speed.latency_ns));
    readers.bytes = (size_t)1 << 60;
    assert_int_equal(dm_memory_speed_measure(&readers, &speed), DM_ERR_MEMORY);
    readers.bytes = 16 << 10;
    dm_interrupt();
    assert_int_equal(dm_memory_speed_measure(&readers, &speed), DM_ERR_INTERRUPTED);
    dm_interrupt_clear();
}

static void disk_is_read(void **state) {
    (void)state;
    dm_disk disk;
    assert_int_equal(dm_disk_identify(tree, &disk), DM_OK);
    assert_true(strchr(disk.device, ':') != NULL && disk.filesystem[0] != '\0' && isnan(disk.read_us));
    assert_int_equal(dm_disk_measure(100000, &disk), DM_OK);
    assert_string_equal(disk.problem, "");
    assert_true(disk.bandwidth_gb_s > 0 && disk.read_us > 0 && disk.page_us > 0 && disk.file_bytes >= disk.read_bytes);
    assert_int_equal(disk.read_bytes, 102400);
    assert_int_equal(rmdir(tree), 0); /* nothing is left in it */
    assert_int_equal(mkdir(tree, 0700), 0);
    dm_interrupt();
    assert_int_equal(dm_disk_measure(4096, &disk), DM_ERR_INTERRUPTED);
    dm_interrupt_clear();
}

static void disks_that_cannot_be_read(void **state) {
    (void)state;
    dm_disk disk;
    assert_int_equal(dm_disk_identify(tree_path("nowhere"), &disk), DM_ERR_IO);
    assert_int_equal(mkfifo(tree_path("fifo"), 0600), 0);
    assert_int_equal(dm_disk_identify(tree_path("fifo"), &disk), DM_ERR_IO);
    put_file("/short", "x");
    assert_int_equal(dm_disk_identify(tree_path("short"), &disk), DM_OK);
    assert_int_equal(dm_disk_measure(4096, &disk), DM_OK);
    assert_true(disk.problem[0] != '\0' && isnan(disk.bandwidth_gb_s));
    char pages[2 * 4096 + 1];
    memset(pages, 'x', sizeof pages - 1);
    pages[sizeof pages - 1] = '\0';
    put_file("/pages", pages);
    assert_int_equal(dm_disk_identify(tree_path("pages"), &disk), DM_OK);
    assert_int_equal(dm_disk_measure(gib, &disk), DM_OK);
    assert_true(disk.problem[0] == '\0' && disk.read_bytes == 8192 && disk.file_bytes == 8192);
}

/* ---- The file of figures ---- */

typedef struct kept_machine {
    dm_hardware hardware;
    dm_topology topology;
} kept_machine;

static kept_machine machine_to_keep(void) {
    kept_machine it = {.hardware = read_synthetic(two_nodes, ask_nothing)};
    dm_topology *t = &it.topology;
    assert_int_equal(dm_tiers_list(&it.hardware, &t->tiers, &t->n_tiers), DM_OK);
    t->memory.total = 128 * gib - 17 * mib;
    t->measured_threads = t->usable_threads = 16;
    t->measured_at = 1234567890;
    for (size_t i = 0; i < t->n_tiers; i++) {
        t->tiers[i].bandwidth_gb_s = 100.0 / (double)(i + 1);
        t->tiers[i].latency_ns = 1.25 * (double)(i + 1);
        t->tiers[i].huge_pages = i > 1;
    }
    t->disk = (dm_disk){.device = "8:1",
                        .filesystem = "ext4",
                        .direct = true,
                        .file_bytes = 1 << 20,
                        .read_bytes = 65536,
                        .bandwidth_gb_s = 2.5,
                        .read_us = 90,
                        .page_us = 80};
    return it;
}

static void drop_machine(kept_machine *it) {
    dm_hardware_free(&it->hardware);
    dm_topology_free(&it->topology);
}

/* Whether the file in the tree gives this machine its tiers, and a disk like its own. */
static bool has_figures(kept_machine *it, bool *disk_too) {
    dm_topology_file file;
    dm_disk disk = {.device = "8:1", .filesystem = "ext4"};
    assert_int_equal(dm_topology_file_open(tree_path("topology.json"), &it->hardware, &it->topology, &file), DM_OK);
    bool tiers = dm_topology_file_tiers(&file, &it->topology);
    *disk_too = dm_topology_file_disk(&file, 65536, &disk) && disk.read_us == 90 && disk.direct;
    assert_false(dm_topology_file_disk(&file, 4096, &disk)); /* of another size of reads */
    dm_topology_file_close(&file);
    return tiers;
}

static void keep_machine(kept_machine *it) {
    dm_topology_file file;
    assert_int_equal(dm_topology_file_open(tree_path("topology.json"), &it->hardware, &it->topology, &file), DM_OK);
    assert_int_equal(dm_topology_file_write(&file, tree_path("topology.json"), 65536, &it->topology), DM_OK);
    dm_topology_file_close(&file);
}

static void figures_are_kept(void **state) {
    (void)state;
    kept_machine it = machine_to_keep();
    bool disk;
    assert_false(has_figures(&it, &disk));
    keep_machine(&it);
    for (size_t i = 0; i < it.topology.n_tiers; i++) {
        it.topology.tiers[i].bandwidth_gb_s = 0;
    }
    it.topology.measured_at = 0;
    assert_true(has_figures(&it, &disk) && disk);
    assert_true(it.topology.tiers[1].bandwidth_gb_s == 50 && it.topology.tiers[2].huge_pages &&
                it.topology.measured_at == 1234567890);
    assert_true(isnan(it.topology.tiers[1].total_bandwidth_gb_s));
    snprintf(it.topology.disk.device, sizeof it.topology.disk.device, "9:9"); /* another disk joins the first */
    keep_machine(&it);
    assert_true(has_figures(&it, &disk) && disk);
    for (int i = 0; i < 40; i++) { /* and many push it out */
        snprintf(it.topology.disk.device, sizeof it.topology.disk.device, "7:%d", i);
        keep_machine(&it);
    }
    assert_true(has_figures(&it, &disk) && !disk);
    drop_machine(&it);
}

static void figures_of_another_machine(void **state) {
    (void)state;
    kept_machine it = machine_to_keep();
    bool disk;
    keep_machine(&it);
    it.topology.memory.total -= 100 * mib; /* the same, as another kernel has it */
    assert_true(has_figures(&it, &disk));
    it.topology.measured_threads = 8;
    assert_false(has_figures(&it, &disk) || disk);
    it.topology.measured_threads = 16;
    it.topology.memory.total = 64 * gib;
    assert_false(has_figures(&it, &disk) || disk);
    it.topology.memory.total = 128 * gib;
    it.hardware.caches[2].bytes *= 2;
    assert_false(has_figures(&it, &disk) || disk);
    it.hardware.caches[2].bytes /= 2;
    it.hardware.nodes[1].threads = 4;
    assert_false(has_figures(&it, &disk) || disk);
    it.hardware.nodes[1].threads = 8;
    snprintf(it.topology.processor, sizeof it.topology.processor, "another");
    assert_false(has_figures(&it, &disk) || disk);
    drop_machine(&it);
}

/* Replaces the first `from` in the kept file. */
static void damage(const char *text, const char *from, const char *to) {
    static char damaged[1 << 16];
    const char *at = strstr(text, from);
    assert_non_null(at);
    snprintf(damaged, sizeof damaged, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    put_file("/topology.json", damaged);
}

static void files_that_cannot_be_used(void **state) {
    (void)state;
    static const char *const changes[][2] = {
        {"\"tiers\"", "\"tears\""},
        {"\"L1\"", "\"L9\""},
        {"\"latency_ns\": 1.25", "\"latency_ns\": -1"},
        {"1.25", "\"1.25\""},
        {"1.25", "1e300"},
        {"1.25", "0"},
        {"1234567890", "\"now\""},
        {"\"version\": 1", "\"version\": 99"},
        {"\"huge_pages\": false", "\"huge_pages\": 7"},
    };
    static char text[1 << 16];
    kept_machine it = machine_to_keep();
    bool disk;
    keep_machine(&it);
    FILE *file = fopen(tree_path("topology.json"), "r");
    assert_non_null(file);
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        damage(text, changes[i][0], changes[i][1]);
        assert_false(has_figures(&it, &disk));
    }
    damage(text, "\"read_us\": 90.0", "\"read_us\": []");
    assert_true(has_figures(&it, &disk) && !disk);
    damage(text, "\"read_bytes\": 65536", "\"read_bytes\": 1048577");
    assert_true(has_figures(&it, &disk) && !disk);
    damage(text, "\"read_bytes\": 65536", "\"read_bytes\": 18446744073709551615");
    assert_false(has_figures(&it, &disk) || disk);
    for (size_t cut = 0; cut + 2 < length; cut += 7) {
        static char part[1 << 16];
        snprintf(part, sizeof part, "%.*s", (int)cut, text);
        put_file("/topology.json", part);
        assert_false(has_figures(&it, &disk) || disk);
    }
    keep_machine(&it); /* what cannot be used is replaced */
    assert_true(has_figures(&it, &disk) && disk);
    unlink(tree_path("topology.json"));
    assert_int_equal(mkdir(tree_path("topology.json"), 0700), 0);
    assert_false(has_figures(&it, &disk) || disk);
    drop_machine(&it);
}

/* ---- The whole ---- */

static void expert_sizes(void **state) {
    (void)state;
    tiny_model tiny;
    dm_topology topology;
    assert_int_equal(setenv("XDG_CACHE_HOME", tree, 1), 0);
    assert_int_equal(setenv("HWLOC_SYNTHETIC", "L2Cache:1(size=1MiB) Core:1 PU:2", 1), 0); /* small, and quickly measured */
    tiny_model_make(&tiny, "qwen3moe", "f32", 3);
    const dm_topology_options how = {.path = tiny.path}, kept = {.path = tiny.path, .kept_only = true};
    assert_int_equal(dm_topology_measure(&kept, &topology), DM_OK);
    assert_true(!topology.measured && topology.n_tiers >= 1 && isnan(topology.tiers[topology.n_tiers - 1].bandwidth_gb_s));
    dm_topology_free(&topology);
    assert_int_equal(dm_topology_measure(&how, &topology), DM_OK);
    assert_true(topology.measured && topology.n_tiers >= 1 && topology.usable_threads >= 1);
    assert_string_equal(topology.disk.path, tiny.path);
    assert_int_equal(topology.disk.read_bytes, 12288); /* 3 matrices of 32 x 24 floats, in whole pages */
    dm_topology_free(&topology);
    assert_int_equal(dm_topology_measure(&how, &topology), DM_OK);
    assert_false(topology.measured);
    assert_int_equal(topology.disk.read_bytes, 12288);
    dm_topology_free(&topology);
    assert_int_equal(dm_topology_measure(&kept, &topology), DM_OK);
    assert_true(!topology.measured && isfinite(topology.tiers[topology.n_tiers - 1].bandwidth_gb_s));
    dm_topology_free(&topology);
    const dm_topology_options nowhere = {.path = tree_path("nowhere.gguf")};
    assert_int_equal(dm_topology_measure(&nowhere, &topology), DM_ERR_IO);
    assert_true(topology.tiers == NULL && topology.nodes == NULL);
    dm_interrupt();
    const dm_topology_options again = {.refresh = true};
    assert_int_equal(dm_topology_measure(&again, &topology), DM_ERR_INTERRUPTED);
    dm_interrupt_clear();
    tiny_model_remove(&tiny);
}

#define in_tree(test) cmocka_unit_test_setup_teardown(test, make_tree, remove_tree)

int main(void) {
    dm_set_threads(2);
    const struct CMUnitTest tests[] = {
        in_tree(memory_without_groups),
        in_tree(groups_of_version_2),
        in_tree(groups_of_version_1),
        in_tree(groups_that_make_no_sense),
        cmocka_unit_test(memory_of_this_machine),
        in_tree(huge_pages),
        cmocka_unit_test(several_nodes),
        cmocka_unit_test(working_sets),
        cmocka_unit_test(without_third_level),
        cmocka_unit_test(nothing_is_told),
        cmocka_unit_test(cores_that_differ),
        cmocka_unit_test(this_machine),
        cmocka_unit_test(memory_is_read),
        in_tree(disk_is_read),
        in_tree(disks_that_cannot_be_read),
        in_tree(figures_are_kept),
        in_tree(figures_of_another_machine),
        in_tree(files_that_cannot_be_used),
        in_tree(expert_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
