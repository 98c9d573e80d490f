#include "core/game_costs.h"

#include <math.h>

static const double most_cost = 1e30;

static double held(double cost) {
    if (!(cost < most_cost)) { /* NaN too */
        return most_cost;
    }
    return cost > -most_cost ? cost : -most_cost;
}

static double cost_of(const dm_loads *loads, size_t expert, size_t users) {
    const dm_routing_game_costs *costs = &loads->game->costs;
    double cost = loads->crowding * (double)users + loads->fetch[expert] / (double)users;
    if (costs->price != NULL) {
        cost += (double)costs->price[expert];
    }
    if (costs->any != NULL) {
        cost += held(costs->any(costs->any_user, expert, users));
    }
    return cost;
}

void dm_loads_clear(dm_loads *loads) {
    const dm_routing_game *game = loads->game;
    const dm_routing_game_costs *costs = &game->costs;
    double choices = (double)game->max_k * (double)game->tokens;
    loads->crowding = choices > 0.0 ? held(costs->beta * (double)game->experts / choices) : 0.0;
    double rate = costs->tau != NULL ? costs->gamma * costs->spread / costs->tau_disk : 0.0;
    for (size_t e = 0; e < game->experts; e++) {
        loads->fetch[e] = costs->tau != NULL ? held(rate * (double)costs->tau[e]) : 0.0;
        loads->users[e] = 0;
    }
}

void dm_loads_price(dm_loads *loads) {
    const bool *off = loads->game->off;
    for (size_t e = 0; e < loads->game->experts; e++) {
        size_t users = loads->users[e];
        loads->here[e] = users > 0 ? cost_of(loads, e, users) : 0.0;
        loads->join[e] = off != NULL && off[e] ? INFINITY : cost_of(loads, e, users + 1);
    }
}

void dm_loads_join(dm_loads *loads, size_t expert) {
    loads->users[expert]++;
    loads->here[expert] = loads->join[expert];
    loads->join[expert] = cost_of(loads, expert, loads->users[expert] + 1);
}

void dm_loads_leave(dm_loads *loads, size_t expert) {
    loads->users[expert]--;
    loads->join[expert] = loads->here[expert];
    loads->here[expert] = loads->users[expert] > 0 ? cost_of(loads, expert, loads->users[expert]) : 0.0;
}

/* 1 + 1/2 + ... + 1/n. From 16 on by Euler and Maclaurin, whose first term left out is below 1e-14 there. */
static double harmonic(size_t n) {
    if (n >= 16) {
        double x = (double)n, y = 1.0 / (x * x);
        return log(x) + 0.57721566490153286 + 0.5 / x - y * (1.0 / 12 - y * (1.0 / 120 - y * (1.0 / 252 - y / 240)));
    }
    double sum = 0.0;
    for (size_t j = 1; j <= n; j++) {
        sum += 1.0 / (double)j;
    }
    return sum;
}

double dm_loads_rosenthal(const dm_loads *loads) {
    const dm_routing_game_costs *costs = &loads->game->costs;
    double sum = 0.0;
    for (size_t e = 0; e < loads->game->experts; e++) {
        size_t users = loads->users[e];
        double n = (double)users;
        if (users == 0) {
            continue;
        }
        sum += loads->crowding * (0.5 * n * (n + 1.0));
        sum += loads->fetch[e] != 0.0 ? loads->fetch[e] * harmonic(users) : 0.0;
        sum += costs->price != NULL ? (double)costs->price[e] * n : 0.0;
        for (size_t j = 1; costs->any != NULL && j <= users; j++) {
            sum += held(costs->any(costs->any_user, e, j));
        }
    }
    return sum;
}

bool dm_costs_depend_on_loads(const dm_routing_game_costs *costs) {
    bool fetching = costs->tau != NULL && costs->gamma != 0.0 && costs->spread != 0.0;
    return costs->beta != 0.0 || fetching || costs->any != NULL;
}
