/* Small dense systems of linear equations in double precision. */
#ifndef DM_CORE_LINEAR_SYSTEM_H
#define DM_CORE_LINEAR_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>

/* Solves a x = b by elimination with row pivots; a [n, n] is used up and b [n] becomes x. False where a is singular to working
 * precision. */
bool dm_linear_solve(double *a, double *b, size_t n);

#endif
