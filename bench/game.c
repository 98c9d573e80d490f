/*
 * Playing the routing game: nanoseconds a token and sweep, and sweeps to rest, for sizes as routers have them. Affinities
 * are Gaussian with favourites among the experts, as trained routers have them; each size is played many times with new ones.
 * Usage: dm-bench-game [EPS [THREADS]]; one thread unless more are given.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "core/game.h"

enum { MOST_TOKENS = 4096, MOST_EXPERTS = 256, MOST_K = 8, MOST_GAMES = 200, WORK = 1 << 20 };

typedef struct arena {
    float affinities[MOST_TOKENS * MOST_EXPERTS], logits[MOST_EXPERTS], tau[MOST_EXPERTS];
    int32_t candidates[MOST_TOKENS * MOST_EXPERTS], strategies[MOST_TOKENS * MOST_K];
} arena;

static arena a;

typedef struct figures {
    size_t sweeps[MOST_GAMES], games;
    double seconds, swept; /* tokens times sweeps */
} figures;

/* The flock of a token: its g best of E fresh logits, which favour some experts. */
static void draw_token(size_t i, const dm_routing_game *game, dm_random *random) {
    float *affinities = a.affinities + i * game->flock;
    int32_t *ids = a.candidates + i * game->flock;
    size_t count = 0;
    for (size_t e = 0; e < game->experts; e++) {
        float logit = (float)(dm_random_normal(random) + (e % 8 == 0 ? 1.0 : 0.0));
        if (game->flock == game->experts) {
            affinities[e] = logit;
            continue;
        }
        size_t at = count < game->flock ? count++ : count;
        for (; at > 0 && logit > affinities[at - 1]; at--) {
            if (at < game->flock) {
                affinities[at] = affinities[at - 1];
                ids[at] = ids[at - 1];
            }
        }
        if (at < game->flock) {
            affinities[at] = logit;
            ids[at] = (int32_t)e;
        }
    }
}

static dm_status play(dm_routing_game *game, figures *f) {
    size_t bytes;
    DM_TRY(dm_routing_game_scratch(game, &bytes));
    void *scratch = dm_alloc(bytes, 1);
    if (scratch == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_random random;
    dm_random_seed(&random, 1);
    size_t wanted = WORK / (game->tokens * game->experts) + 5;
    f->games = wanted < MOST_GAMES ? wanted : MOST_GAMES;
    for (size_t r = 0; r < f->games; r++) {
        for (size_t i = 0; i < game->tokens; i++) {
            draw_token(i, game, &random);
        }
        for (size_t e = 0; e < game->experts; e++) {
            a.tau[e] = dm_random_uniform(&random) < 0.5 ? 1.0f : 0.0f;
        }
        dm_routing_game_result result;
        double start = dm_seconds();
        dm_routing_game_play(game, a.strategies, scratch, &result);
        f->seconds += dm_seconds() - start;
        f->swept += (double)(result.sweeps * game->tokens);
        f->sweeps[r] = result.sweeps;
    }
    dm_free(scratch);
    return DM_OK;
}

static int ascending(const void *x, const void *y) {
    size_t p = *(const size_t *)x, q = *(const size_t *)y;
    return p < q ? -1 : p > q;
}

static dm_status bench(size_t tokens, size_t experts, size_t k, size_t flock, bool fetching, double eps, int threads) {
    dm_routing_game game = {.tokens = tokens,
                            .experts = experts,
                            .flock = flock,
                            .affinities = a.affinities,
                            .min_k = k,
                            .max_k = k,
                            .candidates = flock < experts ? a.candidates : NULL,
                            .keep_top = 1,
                            .eps = eps,
                            .most_sweeps = 1000,
                            .threads = threads};
    if (fetching) {
        game.costs = (dm_routing_game_costs){.gamma = 0.1, .spread = 6.0, .tau = a.tau, .tau_disk = 1.0};
    } else {
        game.costs.beta = 0.3;
    }
    printf("%6zu %7zu %3zu %5zu %-9s", tokens, experts, k, flock, fetching ? "fetching" : "crowding");
    for (int propose = 0; propose < 2; propose++) {
        static figures f;
        f = (figures){0};
        game.propose = propose != 0;
        DM_TRY(play(&game, &f));
        qsort(f.sweeps, f.games, sizeof *f.sweeps, ascending);
        printf(" | %8.1f %8.1f %4zu %4zu %4zu", f.seconds * 1e9 / f.swept, f.seconds * 1e9 / (double)(f.games * tokens),
               f.sweeps[f.games / 2], f.sweeps[f.games * 9 / 10], f.sweeps[f.games - 1]);
    }
    printf("\n");
    fflush(stdout);
    return DM_OK;
}

static dm_status bench_all(double eps, int threads) {
    const size_t tokens[] = {1, 8, 64, 512, 4096};
    const struct {
        size_t experts, k, flock;
    } shapes[] = {{32, 4, 7}, {32, 4, 32}, {64, 8, 16}, {64, 8, 64}, {256, 8, 16}, {256, 8, 256}};
    for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++) {
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            DM_TRY(bench(tokens[t], shapes[s].experts, shapes[s].k, shapes[s].flock, false, eps, threads));
            DM_TRY(bench(tokens[t], shapes[s].experts, shapes[s].k, shapes[s].flock, true, eps, threads));
        }
    }
    return DM_OK;
}

int main(int argc, char **argv) {
    double eps = argc > 1 ? atof(argv[1]) : 1e-2;
    int threads = argc > 2 ? atoi(argv[2]) : 1;
    if (!(eps >= 0.0) || threads < 1) {
        fprintf(stderr, "usage: dm-bench-game [EPS [THREADS]]\n");
        return 2;
    }
    printf("eps %g; affinities have variance 1\n%34s | %-32s | %s\n", eps, "", "in turn", "proposals");
    printf("%6s %7s %3s %5s %-9s", "tokens", "experts", "k", "flock", "cost");
    for (int i = 0; i < 2; i++) {
        printf(" | %8s %8s %4s %4s %4s", "ns/token", "ns/token", "med.", "90%", "most");
    }
    printf("\n%34s | %8s %8s %14s | %8s %8s %14s\n", "", "&sweep", "in all", "sweeps", "&sweep", "in all", "sweeps");
    if (bench_all(eps, threads) != DM_OK) {
        fprintf(stderr, "dm-bench-game: %s\n", dm_error_message());
        return 1;
    }
    return 0;
}
