/*
 * The reader of Gambit's .nfg, version 1 (format: gambitproject.readthedocs.io, "Game representation formats"):
 *
 *   NFG 1 R "title" { players' names } STRATEGIES ["comment"] BODY
 *   STRATEGIES: { 2 3 } or { { "up" "down" } { "a" "b" "c" } }
 *   BODY:       every profile's payoffs, one number per player; or
 *               { { "outcome" 1, 1 } ... } and every profile's outcome, from 1; 0 is the outcome in which nobody gets anything
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/table.h"
#include "core/nfg_tokens.h"
#include "core/normal_form.h"

typedef struct reader {
    dm_nfg_tokens tokens;
    char *title;
    char **players;
    size_t n_players, players_room;
    int32_t *counts; /* [n_counts] strategies of each player */
    size_t n_counts, counts_room;
    char **names; /* of strategies, all players' */
    size_t n_names, names_room;
    size_t line; /* of the strategies */
} reader;

static void free_list(char **list, size_t n) {
    for (size_t i = 0; i < n; i++) {
        free(list[i]);
    }
    free((void *)list);
}

static void reader_free(reader *r) {
    free(r->title);
    free_list(r->players, r->n_players);
    free_list(r->names, r->n_names);
    free(r->counts);
    dm_nfg_tokens_free(&r->tokens);
}

/* ---- The prologue ---- */

/* The string that the current token is. The caller takes it into its list before it goes on, as going on may fail. */
static dm_status copy_string(const dm_nfg_tokens *tokens, const char *expected, char **out) {
    if (tokens->kind != DM_NFG_STRING) {
        return dm_nfg_expected(tokens, expected);
    }
    *out = strdup(tokens->text);
    if (*out == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory reading a name");
    }
    return DM_OK;
}

static dm_status take(dm_nfg_tokens *tokens, dm_nfg_kind kind, const char *expected) {
    return tokens->kind == kind ? dm_nfg_next(tokens) : dm_nfg_expected(tokens, expected);
}

/* Strings up to the closing brace, added to a list. */
static dm_status read_strings(dm_nfg_tokens *tokens, const char *expected, char ***list, size_t *n, size_t *room) {
    while (tokens->kind != DM_NFG_CLOSE) {
        DM_TRY(dm_reserve((void *)list, room, *n + 1, sizeof **list));
        DM_TRY(copy_string(tokens, expected, &(*list)[*n]));
        ++*n;
        DM_TRY(dm_nfg_next(tokens));
    }
    return dm_nfg_next(tokens);
}

static dm_status add_count(reader *r, size_t count) {
    if (count < 1 || count > DM_GAME_MAX_PAYOFFS) {
        return dm_fail(DM_ERR_FORMAT, "line %zu: expected 1 to %d strategies for player %zu", r->tokens.line, DM_GAME_MAX_PAYOFFS,
                       r->n_counts + 1);
    }
    DM_TRY(dm_reserve((void *)&r->counts, &r->counts_room, r->n_counts + 1, sizeof *r->counts));
    r->counts[r->n_counts++] = (int32_t)count;
    return DM_OK;
}

static dm_status read_counts(reader *r) {
    while (r->tokens.kind == DM_NFG_NUMBER) {
        size_t count = 0;
        DM_TRY(dm_nfg_index(&r->tokens, DM_GAME_MAX_PAYOFFS, "a number of strategies", &count));
        DM_TRY(add_count(r, count));
        DM_TRY(dm_nfg_next(&r->tokens));
    }
    return take(&r->tokens, DM_NFG_CLOSE, "a number of strategies or '}'");
}

static dm_status read_names(reader *r) {
    while (r->tokens.kind == DM_NFG_OPEN) {
        DM_TRY(dm_nfg_next(&r->tokens));
        size_t before = r->n_names;
        DM_TRY(read_strings(&r->tokens, "a strategy's name in quotes or '}'", &r->names, &r->n_names, &r->names_room));
        DM_TRY(add_count(r, r->n_names - before));
    }
    return take(&r->tokens, DM_NFG_CLOSE, "'{' with a player's strategies, or '}'");
}

static dm_status read_strategies(reader *r) {
    r->line = r->tokens.line;
    DM_TRY(take(&r->tokens, DM_NFG_OPEN, "'{' with the strategies"));
    DM_TRY(r->tokens.kind == DM_NFG_OPEN ? read_names(r) : read_counts(r));
    if (r->n_counts != r->n_players) {
        return dm_fail(DM_ERR_FORMAT, "line %zu: expected strategies for %zu players, found them for %zu", r->line, r->n_players,
                       r->n_counts);
    }
    return DM_OK;
}

static dm_status read_prologue(reader *r) {
    dm_nfg_tokens *tokens = &r->tokens;
    if (tokens->kind != DM_NFG_WORD || strcmp(tokens->text, "NFG") != 0) {
        return dm_nfg_expected(tokens, "NFG, which a game in strategic form starts with");
    }
    DM_TRY(dm_nfg_next(tokens));
    size_t version;
    if (tokens->kind != DM_NFG_NUMBER || dm_nfg_index(tokens, 1, "", &version) != DM_OK || version != 1) {
        return dm_nfg_expected(tokens, "the format's version, 1");
    }
    DM_TRY(dm_nfg_next(tokens));
    if (tokens->kind != DM_NFG_WORD || (strcmp(tokens->text, "R") != 0 && strcmp(tokens->text, "D") != 0)) {
        return dm_nfg_expected(tokens, "R");
    }
    DM_TRY(dm_nfg_next(tokens));
    DM_TRY(copy_string(tokens, "the title in quotes", &r->title));
    DM_TRY(dm_nfg_next(tokens));
    DM_TRY(take(tokens, DM_NFG_OPEN, "'{' with the players' names"));
    DM_TRY(read_strings(tokens, "a player's name in quotes or '}'", &r->players, &r->n_players, &r->players_room));
    if (r->n_players < 1 || r->n_players > DM_GAME_MAX_PLAYERS) {
        return dm_fail(DM_ERR_FORMAT, "line %zu: expected 1 to %d players, found %zu", tokens->line, DM_GAME_MAX_PLAYERS,
                       r->n_players);
    }
    DM_TRY(read_strategies(r));
    return tokens->kind == DM_NFG_STRING ? dm_nfg_next(tokens) : DM_OK; /* a comment */
}

/* ---- The body ---- */

/* Payoffs that outcomes give, [n, players]. */
typedef struct outcomes {
    double *payoffs;
    dm_exact *exact;
    size_t n, payoffs_room, exact_room;
} outcomes;

static dm_status read_outcome(dm_nfg_tokens *tokens, size_t players, outcomes *all) {
    size_t start = all->n * players;
    DM_TRY(take(tokens, DM_NFG_OPEN, "'{' with an outcome, or '}'"));
    if (tokens->kind != DM_NFG_STRING) {
        return dm_nfg_expected(tokens, "the outcome's name in quotes");
    }
    DM_TRY(dm_nfg_next(tokens));
    DM_TRY(dm_reserve((void *)&all->payoffs, &all->payoffs_room, start + players, sizeof *all->payoffs));
    DM_TRY(dm_reserve((void *)&all->exact, &all->exact_room, start + players, sizeof *all->exact));
    for (size_t i = 0; i < players; i++) {
        DM_TRY(dm_nfg_payoff(tokens, &all->payoffs[start + i], &all->exact[start + i]));
        DM_TRY(dm_nfg_next(tokens));
        if (tokens->kind == DM_NFG_COMMA) {
            DM_TRY(dm_nfg_next(tokens));
        }
    }
    all->n++;
    return take(tokens, DM_NFG_CLOSE, "'}' after one payoff for each player");
}

static void put_outcome(dm_game *game, size_t profile, const outcomes *all, size_t outcome) {
    size_t players = (size_t)game->players;
    for (size_t i = 0; i < players; i++) {
        size_t from = (outcome - 1) * players + i;
        game->payoffs[profile * players + i] = outcome > 0 ? all->payoffs[from] : 0.0;
        if (game->exact != NULL) {
            game->exact[profile * players + i] = outcome > 0 ? all->exact[from] : (dm_exact){0, 1, 0, 0};
        }
    }
}

static dm_status read_outcomes(dm_nfg_tokens *tokens, dm_game *game, outcomes *all) {
    DM_TRY(dm_nfg_next(tokens));
    while (tokens->kind != DM_NFG_CLOSE) {
        DM_TRY(read_outcome(tokens, (size_t)game->players, all));
    }
    DM_TRY(dm_nfg_next(tokens));
    for (size_t p = 0; p < game->profiles; p++) {
        size_t outcome = 0;
        DM_TRY(dm_nfg_index(tokens, all->n, "an outcome's number", &outcome));
        put_outcome(game, p, all, outcome);
        DM_TRY(dm_nfg_next(tokens));
    }
    return DM_OK;
}

static dm_status read_payoffs(dm_nfg_tokens *tokens, dm_game *game) {
    size_t entries = game->profiles * (size_t)game->players;
    for (size_t k = 0; k < entries; k++) {
        dm_exact exact;
        DM_TRY(dm_nfg_payoff(tokens, &game->payoffs[k], &exact));
        if (game->exact != NULL) {
            game->exact[k] = exact;
        }
        DM_TRY(dm_nfg_next(tokens));
    }
    return DM_OK;
}

static dm_status read_body(dm_nfg_tokens *tokens, dm_game *game) {
    dm_status status;
    if (tokens->kind == DM_NFG_OPEN) {
        outcomes all = {0};
        status = read_outcomes(tokens, game, &all);
        free(all.payoffs);
        free(all.exact);
    } else {
        status = read_payoffs(tokens, game);
    }
    if (status == DM_OK && tokens->kind != DM_NFG_END) {
        return dm_nfg_expected(tokens, "the end, as every combination of strategies has its payoffs");
    }
    return status;
}

/* ---- The whole ---- */

/* Every combination of strategies takes at least a digit and a space in the file, so a small file gets little memory. */
static dm_status check_length(const reader *r) {
    size_t profiles = 1;
    for (size_t i = 0; i < r->n_counts; i++) {
        if (!dm_mul_size(profiles, (size_t)r->counts[i], &profiles) || profiles > DM_GAME_MAX_PAYOFFS) {
            return DM_OK; /* dm_game_allocate() has the words for it */
        }
    }
    size_t left = dm_nfg_left(&r->tokens);
    if (profiles > left) {
        return dm_fail(DM_ERR_FORMAT, "line %zu: expected %zu combinations of strategies, but only %zu bytes follow", r->line,
                       profiles, left);
    }
    return DM_OK;
}

static dm_status give_names(reader *r, dm_game *game) {
    game->title = r->title;
    r->title = NULL;
    game->player_names = dm_alloc(r->n_players, sizeof *game->player_names);
    if (game->player_names == NULL) {
        return DM_ERR_MEMORY;
    }
    memcpy((void *)game->player_names, (void *)r->players, r->n_players * sizeof *game->player_names);
    r->n_players = 0;
    if (r->n_names > 0) {
        game->strategy_names = dm_alloc(r->n_names, sizeof *game->strategy_names);
        if (game->strategy_names == NULL) {
            return DM_ERR_MEMORY;
        }
        memcpy((void *)game->strategy_names, (void *)r->names, r->n_names * sizeof *game->strategy_names);
        r->n_names = 0;
    }
    return DM_OK;
}

static dm_status read_game(reader *r, dm_game **out) {
    DM_TRY(dm_nfg_next(&r->tokens));
    DM_TRY(read_prologue(r));
    DM_TRY(check_length(r));
    dm_status status = dm_game_allocate((int32_t)r->n_counts, r->counts, out);
    if (status != DM_OK) {
        char where[32];
        snprintf(where, sizeof where, "line %zu", r->line);
        return dm_fail_in(status, where);
    }
    DM_TRY(give_names(r, *out));
    DM_TRY(read_body(&r->tokens, *out));
    dm_game_scale(*out);
    return DM_OK;
}

dm_status dm_game_parse(const char *text, size_t length, dm_game **out) {
    *out = NULL;
    reader r = {.tokens = {.at = text, .end = text + length, .line = 1}};
    dm_status status = read_game(&r, out);
    if (status != DM_OK) {
        dm_game_free(*out);
        *out = NULL;
    }
    reader_free(&r);
    return status;
}

dm_status dm_game_open(const char *path, dm_game **out) {
    *out = NULL;
    dm_map map;
    DM_TRY(dm_map_open(path, &map));
    dm_status status = dm_game_parse(map.data != NULL ? (const char *)map.data : "", map.size, out);
    dm_map_close(&map);
    return status != DM_OK ? dm_fail_in(status, path) : DM_OK;
}
