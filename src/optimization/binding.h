/* Which processors threads are bound to. */
#ifndef DM_OPTIMIZATION_BINDING_H
#define DM_OPTIMIZATION_BINDING_H

#include "optimization/hardware.h"

/* seats [threads] = which of hardware->usable each thread gets: the nodes in turn, in each of them a core of its own as long as
 * there are any, then second hardware threads of cores, and then the same again. False where a node or core is unknown. */
bool dm_binding_seats(const dm_hardware *hardware, size_t threads, size_t *seats);

#endif
