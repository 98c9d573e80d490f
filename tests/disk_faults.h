/* Disks that misbehave: the linker sends pread() and the calls to liburing here in tests that CMakeLists.txt lists for that. */
#ifndef DM_TESTS_DISK_FAULTS_H
#define DM_TESTS_DISK_FAULTS_H

#include <stdbool.h>
#include <stddef.h>

/* What becomes of the next reads, in the order in which they end: 0 nothing, above 0 that errno, below 0 no more than so many
 * bytes are read. Those after the last one go well. */
void disk_faults_set(const int *faults, size_t n);
/* Whether all of them came to pass. */
bool disk_faults_over(void);

/* Reads of threads take so long, in addition. */
void disk_faults_delay(unsigned microseconds);

/* While the disk is held, reads do not end. When it is let go, they write their memory, the oldest last. */
void disk_faults_hold(bool held);

/* The kernel takes no requests of io_uring's from now on, with this errno; 0: it does. */
void disk_faults_refuse(int error);

#endif
