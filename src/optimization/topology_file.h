/* The figures of a machine, kept in a file so that they are measured once. */
#ifndef DM_OPTIMIZATION_TOPOLOGY_FILE_H
#define DM_OPTIMIZATION_TOPOLOGY_FILE_H

#include <jansson.h>

#include "optimization/hardware.h"

/* An open file of figures, or what is to become one. */
typedef struct dm_topology_file {
    json_t *machine; /* what figures belong to: version, hardware, instruction set, threads */
    json_t *root;    /* the whole file; NULL: there is none that can be used */
} dm_topology_file;

/* Reads the file, and forgets what is in it unless it is of this machine, as hardware and the topology's other fields describe
 * it. Whatever is damaged is as good as not there. DM_ERR_MEMORY alone. End it with dm_topology_file_close(). */
dm_status dm_topology_file_open(const char *path, const dm_hardware *hardware, const dm_topology *topology,
                                dm_topology_file *out);
void dm_topology_file_close(dm_topology_file *file);

/* Takes figures from the file. False, and nothing changes, where it has none that can be used. */
bool dm_topology_file_tiers(const dm_topology_file *file, dm_topology *out);
/* Those of a disk with the same device, file system and size of reads asked for. */
bool dm_topology_file_disk(const dm_topology_file *file, uint64_t read_bytes, dm_disk *out);

/* Writes the topology's figures, those of its disk with the size of reads that was asked for, and the file's of other disks;
 * atomically, with the folder if need be. */
dm_status dm_topology_file_write(const dm_topology_file *file, const char *path, uint64_t read_bytes,
                                 const dm_topology *topology);

#endif
