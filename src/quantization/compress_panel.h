/*
 * The compression game on one panel: 16 rows of a matrix, whose units of 32 columns are the players.
 *
 * All players share one payoff, minus sum over rows of D (q - w)^T H (q - w), minus lambda times the panel's bytes, minus mu
 * times its kept tiles, with w always the original weights. Rows meet in nothing but their tiles' widths, and panels in nothing
 * but the prices, so panels are solved one by one, by any thread. dm_panel_construct() gives the start: units from the last to
 * the first, each rounded to what makes up for the errors of those after it (GPTQ, Frantar et al. 2022, written with H's own
 * factor: Babai's nearest plane). dm_panel_play() then plays: a change is made only if the exact change of the payoff says so.
 */
#ifndef DM_QUANTIZATION_COMPRESS_PANEL_H
#define DM_QUANTIZATION_COMPRESS_PANEL_H

#include "quantization/compress_moments.h"
#include "quantization/mixed_encode.h"

enum { DM_CHOICES = DM_MIXED_WIDTHS + 1 /* of a tile: pruned, and the widths that have bytes */, DM_MOST_SWEEPS = 32 };

/* The width of choice number i, and the bytes of such a tile. */
static inline unsigned dm_choice_bits(int i) {
    return i == 0 ? 0u : (unsigned)dm_mixed_bits(i - 1);
}
size_t dm_choice_bytes(int i);
int dm_choice_of(unsigned bits);
/* Bytes of a panel, its part of the matrix's directory included. */
size_t dm_widths_bytes(const uint8_t *widths, size_t units);

/* The levels of one width, ascending. */
typedef struct dm_width_levels {
    int n; /* of a table; 0: whole numbers from low to high */
    float low, high;
    float level[16], middle[16]; /* middle[i]: between level i and the next */
} dm_width_levels;

typedef struct dm_level_tables {
    dm_mixed_levels levels;
    dm_width_levels of[DM_MIXED_WIDTHS];
} dm_level_tables;

void dm_level_tables_make(dm_level_tables *out, const dm_mixed_levels *levels);

typedef struct dm_prices {
    double byte, kept; /* lambda, mu: in units of the error */
} dm_prices;

/* What happened in a game. */
typedef struct dm_play_counts {
    uint64_t proposals[DM_MOST_SWEEPS], moves[DM_MOST_SWEEPS]; /* blocks looked at, and those that changed, per sweep */
    double payoff[DM_MOST_SWEEPS + 1];                         /* before each sweep, and at the end */
    size_t sweeps;
    bool at_rest; /* a sweep over everybody changed nothing */
} dm_play_counts;

/* Arrays are [columns, 16], a row of the panel in each lane. */
typedef struct dm_panel {
    const dm_compress_moments *moments;
    const dm_level_tables *tables;
    float *w; /* the original */
    float *q; /* what is to be written: scale times level */
    float *level;
    float *g;               /* H (q - w); scratch of the construction before */
    float *wanted;          /* [units, 16] scales */
    float d[DM_PANEL_ROWS]; /* 0 of rows past the matrix's end */
    uint8_t *widths;        /* [units] bits */
    dm_mixed_numbers numbers;
    void *memory;
} dm_panel;

/* Room for one; numbers and arrays are the panel's until dm_panel_free(). DM_ERR_MEMORY. */
dm_status dm_panel_create(dm_panel *out, const dm_compress_moments *moments, const dm_level_tables *tables);
void dm_panel_free(dm_panel *it);
/* Takes rows x [rows, columns] and their slopes d [rows]; NaN becomes 0. */
void dm_panel_load(dm_panel *it, const float *x, const float *d, size_t rows);

/* cost [units, DM_CHOICES]: about the error that each choice would leave, if all units after it make up for what they can. */
void dm_panel_costs(dm_panel *it, double *cost);

/* Chooses numbers for the widths that are set. */
void dm_panel_construct(dm_panel *it);
/* Plays from there for up to `sweeps` sweeps, with the panel's bytes at most `bytes`. Adds to `counts`. */
void dm_panel_play(dm_panel *it, const dm_prices *prices, size_t bytes, size_t sweeps, dm_play_counts *counts);
/* g += H times a change [32, 16] of one unit's q. */
void dm_panel_moved(dm_panel *it, size_t unit, const float *change);
/* sum of D (q - w)^T H (q - w), from scratch; leaves H (q - w) in g. */
double dm_panel_error(dm_panel *it);
/* Fills in the codes, for dm_mixed_put_panel(). */
void dm_panel_finish(dm_panel *it);

/* For tests: the exact change of each row's error by a change of one unit's q [32, 16], where g is up to date. */
void dm_panel_change(const dm_panel *it, size_t unit, const float *q, float *change);

#endif
