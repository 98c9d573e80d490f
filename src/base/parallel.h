/*
 * Loops shared out over threads, for work of microseconds: helpers that have
 * nothing to do spin for a moment, then sleep, and a loop that is over before a
 * sleeper wakes does not wait for it. (Training's loops, of milliseconds, are
 * OpenMP's.)
 */
#ifndef DM_BASE_PARALLEL_H
#define DM_BASE_PARALLEL_H

#include <sched.h>

#include "base/status.h"

/* Items begin .. end - 1 of a loop, on thread `thread` (0 is the caller). */
typedef void (*dm_parallel_body)(void *user, size_t begin, size_t end, int thread);

/* Calls the body for all of `n` items, up to `grain` of them at once, on up to `threads` threads but no more than
 * dm_threads(), the caller among them; returns when all are done. Which thread gets which items is left open. Inside a
 * body, and while another thread of the program is running a loop, the caller does everything alone. */
void dm_parallel(int threads, size_t n, size_t grain, dm_parallel_body body, void *user);

/* ---- Groups of threads: those that are near one memory node ---- */

enum { DM_MOST_GROUPS = 64, DM_MOST_THREADS = 256 /* that share a loop */ };

/* From now on thread t is in group[t modulo threads] < groups, and group g is near the system's memory node nodes[g], or none
 * that is known where that is negative. NULL: all are one group, as at first. False, and nothing changes, while others hold
 * other groups than these, or where there are none or too many. While nobody is at work. */
bool dm_parallel_set_groups(const int32_t *group, size_t threads, const int32_t *nodes, size_t groups);
/* Who has memory for each group holds the groups until it is gone. */
void dm_parallel_hold_groups(bool hold);

size_t dm_parallel_groups(void);
size_t dm_parallel_group(int thread);
int dm_parallel_node(size_t group);

/* Of n items in their order, those of a group: [*begin, *end), by its threads. */
void dm_parallel_share(size_t n, size_t group, size_t *begin, size_t *end);

/* Items begin .. end - 1 of a list. */
typedef void (*dm_parallel_list_body)(void *user, size_t list, size_t begin, size_t end, int thread);

/* As dm_parallel(), of n[list] items of each list. One list: any thread takes its items. As many as there are groups: those of
 * each are done by the group's threads alone. Others take them only where none of the group's is among the threads, inside a
 * body, and while another loop is running. */
void dm_parallel_lists(int threads, size_t lists, const size_t *n, size_t grain, dm_parallel_list_body body, void *user);

/* The group whose memory a list's body reads. */
static inline size_t dm_parallel_reader(size_t lists, size_t list, int thread) {
    return lists > 1 ? list : dm_parallel_group(thread);
}

/* Items of a group's lists, where there were several, that its threads have done and that others have, since the groups were
 * set. */
void dm_parallel_counts(size_t group, uint64_t *own, uint64_t *foreign);

/* The grain of items of `cost` multiplications each, or as much of other work: what is handed out is a microsecond's work
 * or more, so that small loops stay with the caller. */
size_t dm_parallel_grain(size_t cost);

/* A grain of up to `wanted` of n items, for items that read memory one after another: each hand-over to another thread loses
 * what was fetched ahead. Fewer where the threads would get less than four turns each; not below `grain`. */
size_t dm_parallel_run(size_t grain, size_t wanted, size_t n, int threads);

/* From now on the calling thread runs on the processors places[0], and helper number t on those of places[t], from the first
 * again where there are more threads than n. NULL: each may run again where it could before the first call. Where the system does
 * not allow a place, the thread stays where it is. */
void dm_parallel_bind(const cpu_set_t *places, size_t n);

/* The calling thread may run where it could before the first call of dm_parallel_bind() (true), or where the last one put it. */
void dm_parallel_roam(bool anywhere);

/* True inside a body: what it calls uses this thread alone. */
bool dm_parallel_inside(void);

#endif
