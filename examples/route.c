/* Routes tokens to experts without a model file. After `make install`:
 *
 *   cc route.c -o route $(pkg-config --cflags --libs dilmodeli) && ./route
 */
#include <dilmodeli.h>
#include <stdio.h>

int main(void) {
    enum { EXPERTS = 4, DIM = 2, TOKENS = 3, TOP_K = 1 };
    const float keys[EXPERTS * DIM] = {1, 0, 0, 1, -1, 0, 0, -1};
    const float tokens[TOKENS * DIM] = {1.0f, 0.8f, 1.0f, 0.9f, 0.9f, 0.1f}; /* all score expert 0 highest */
    dm_swarm_options options = dm_swarm_default(TOP_K);
    options.keep_top = 0; /* the best may be left for one that is less crowded */
    options.beta = 0.3;
    int32_t experts[TOKENS * TOP_K];
    float gates[TOKENS * TOP_K];
    dm_swarm *swarm;
    dm_swarm_result result;
    dm_status status = dm_swarm_create(keys, EXPERTS, DIM, &swarm);
    if (status == DM_OK) {
        status = dm_swarm_decide(swarm, tokens, TOKENS, &options, experts, gates, &result);
    }
    dm_swarm_free(swarm);
    if (status != DM_OK) {
        fprintf(stderr, "%s\n", dm_error_message());
        return 1;
    }
    for (int t = 0; t < TOKENS; t++) {
        printf("token %d: expert %d\n", t, (int)experts[t]);
    }
    printf("sweeps %zu, at rest: %s, MaxVio %.2f\n", result.sweeps, result.at_rest ? "yes" : "no", result.maxvio);
    return 0;
}
