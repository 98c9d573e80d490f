/* What this machine can do at best, measured: what speeds are judged against. */
#ifndef DM_OPTIMIZATION_LIMITS_H
#define DM_OPTIMIZATION_LIMITS_H

/* With all threads; 10^9 additions and multiplications a second, 0 for what the machine lacks. */
typedef struct dm_limits {
    int threads;
    double fp32_gops;
    double bf16_gops;        /* tile registers, or else dot products */
    double int8_gops;        /* the same */
    double int8_vector_gops; /* without tile registers */
    double read_gb_s;        /* 10^9 bytes a second from memory beyond the caches; 0 if there was no room to measure */
} dm_limits;

/* Takes a few seconds, in which the machine should be otherwise idle. */
void dm_machine_limits(dm_limits *out);

#endif
