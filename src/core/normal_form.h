/*
 * Games in strategic (normal) form: players choose a strategy each, at the same time, and a table says what each gets.
 * A profile is one strategy per player; profiles are numbered with the first player's strategy running fastest.
 */
#ifndef DM_CORE_NORMAL_FORM_H
#define DM_CORE_NORMAL_FORM_H

#include "base/status.h"

enum {
    DM_GAME_MAX_PLAYERS = 1024,
    DM_GAME_MAX_PAYOFFS = 1 << 24, /* players * profiles: 128 MiB of table */
    DM_GAME_MAX_EXACT = 64         /* strategies of both players of a game that is also kept exactly: one bit each in a word */
};

/* numerator / denominator * 10^ten * 2^two, denominator > 0, with powers only where the whole does not fit the fraction. */
typedef struct dm_exact {
    int64_t numerator, denominator;
    int32_t ten, two;
} dm_exact;

struct dm_game {
    char *title;
    int32_t players;
    int32_t *strategies;   /* [players] how many each has */
    size_t *first;         /* [players + 1] where a player's strategies start among all of them; the last is `total` */
    size_t total;          /* strategies of all players */
    size_t profiles;       /* product of strategies */
    double *payoffs;       /* [profiles, players] as given */
    double *scaled;        /* [profiles, players] the same moved to 0 .. 1 for each player; 0 for one with a constant payoff */
    double *least, *range; /* [players] smallest payoff, largest minus smallest: given = least + range * scaled */
    dm_exact *exact;       /* [profiles, players], of small games for two players; else NULL */
    char **player_names;   /* [players], or NULL */
    char **strategy_names; /* [total], or NULL where the game has numbers only */
};

/* Products and limits checked before anything is asked for. What has names or payoffs is filled by the caller, who then calls
 * dm_game_scale(). On failure *out is NULL. */
dm_status dm_game_allocate(int32_t players, const int32_t *strategies, dm_game **out);
/* Computes the scaled payoffs; those of exact payoffs that are not too long are exact but for their own rounding. */
void dm_game_scale(dm_game *game);

/* The number in a payoff's limits that is nearest; false where it is outside: payoffs are 0 or of magnitude 1e-300 to 1e300, so
 * that differences and ratios of them are numbers too. Brings `exact` into the form that equal numbers share. */
bool dm_exact_value(dm_exact *exact, double *value);

/* Goes to the next profile: digits[players] of profile p become those of p + 1. */
void dm_game_next_profile(const dm_game *game, int32_t *digits);

#endif
