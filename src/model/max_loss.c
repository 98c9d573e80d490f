/* The largest price of fetching experts that a text's perplexity bears. */
#include <math.h>

#include "model/model.h"

static const double LARGEST = 8.0; /* what up to eight tokens share costs each more than any expert is worth to it */
static const double START = 0.125; /* where models have been seen to lose a percent */
static const double STEP = 4.0;    /* of the bracket */
static const double SMALLEST = 0.125 / 64;
static const double RESOLUTION = 1.05; /* of gamma, where bisection ends */

/* Passes are named by their places in result->tried. */
typedef struct search {
    const dm_model *model;
    const dm_tokenizer *tokenizer;
    const int32_t *ids;
    size_t n;
    const dm_evaluate_options *options;
    double limit;
    dm_max_loss_fn on_window;
    void *user;
    dm_max_loss_result *result;
    int32_t low, high; /* below the gamma looked for, or it, and above; -1: not known */
} search;

/* ---- One pass ------------------------------------------------------------ */

static const dm_max_loss_pass *pass_of(const search *s, int32_t pass) {
    return &s->result->tried[pass];
}

static double change_of(const search *s, double perplexity) {
    return perplexity / pass_of(s, 0)->result.perplexity - 1.0;
}

static void tell(void *user, uint64_t done, uint64_t total, double nll) {
    const search *s = user;
    const dm_max_loss_result *r = s->result;
    s->on_window(s->user, &(dm_max_loss_progress){.pass = r->passes + 1,
                                                  .gamma = r->tried[r->passes].gamma,
                                                  .change = r->passes > 0 && done == total ? change_of(s, exp(nll)) : NAN,
                                                  .done = done,
                                                  .total = total,
                                                  .nll = nll});
}

/* Four digits are what a person copies. The quotient of whole numbers is the double that is nearest to these digits. */
static double four_digits(double gamma) {
    double scale = pow(10.0, 3.0 - floor(log10(gamma)));
    return gamma > 0.0 ? round(gamma * scale) / scale : 0.0;
}

/* Reads the text once; NaN is the model's own choice. A pass that was cut short does not count. */
static dm_status read_text(search *s, double gamma) {
    dm_max_loss_pass *pass = &s->result->tried[s->result->passes];
    dm_router_options router = *s->options->router;
    if (isnan(gamma)) {
        router.policy = DM_ROUTER_MODEL;
    } else {
        router.gamma = gamma;
    }
    dm_evaluate_options how = *s->options;
    how.router = &router;
    pass->gamma = gamma;
    DM_TRY(dm_evaluate(s->model, NULL, s->tokenizer, s->ids, s->n, &how, s->on_window != NULL ? tell : NULL, s, &pass->result));
    if (pass->result.interrupted) {
        return DM_ERR_INTERRUPTED;
    }
    pass->change = change_of(s, pass->result.perplexity);
    s->result->passes++;
    return DM_OK;
}

/* ---- The search ---------------------------------------------------------- */

static bool is_within(const search *s, int32_t pass) {
    return pass_of(s, pass)->change <= s->limit;
}

/* Whether two passes made the same choices: sums over the text that are the same to the last bit. */
static bool is_same(const search *s, int32_t a, int32_t b) {
    const dm_evaluate_result *x = &pass_of(s, a)->result, *y = &pass_of(s, b)->result;
    return x->nll == y->nll && x->routing.changed == y->routing.changed;
}

/* Tries a gamma, which then is the new bound below or above what is looked for: the last within the limit, or, where all are,
 * the first that is the same as the largest. */
static dm_status look(search *s, double gamma) {
    const int32_t pass = s->result->passes;
    DM_TRY(read_text(s, four_digits(gamma)));
    const bool below = s->result->end == DM_MAX_LOSS_ALL ? !is_same(s, pass, 1) : is_within(s, pass);
    *(below ? &s->low : &s->high) = pass;
    return DM_OK;
}

/* The bounds differ by a factor of STEP then, or the lower one is 0. */
static dm_status bracket(search *s) {
    double gamma = START;
    DM_TRY(look(s, gamma));
    while (s->low >= 0 && s->high == 1 && gamma * STEP < LARGEST) {
        DM_TRY(look(s, gamma *= STEP));
    }
    while (s->low < 0 && gamma > SMALLEST) {
        DM_TRY(look(s, gamma /= STEP));
    }
    if (s->low < 0) {
        DM_TRY(look(s, 0.0));
        if (s->result->end == DM_MAX_LOSS_FOUND) {
            s->result->end = DM_MAX_LOSS_NONE;
            s->low = s->result->passes - 1; /* whatever it loses, it is not for its price */
        }
    }
    return DM_OK;
}

static dm_status search_all(search *s) {
    DM_TRY(read_text(s, NAN));
    DM_TRY(read_text(s, LARGEST));
    s->high = 1;
    if (is_within(s, 1)) {
        s->result->end = DM_MAX_LOSS_ALL;
    }
    DM_TRY(bracket(s));
    while (s->low >= 0 && s->result->passes < DM_MAX_LOSS_PASSES) {
        double low = pass_of(s, s->low)->gamma, high = pass_of(s, s->high)->gamma;
        if (high <= RESOLUTION * low || low == 0.0) {
            break;
        }
        DM_TRY(look(s, sqrt(low * high)));
    }
    return DM_OK;
}

/* ---- What is asked for --------------------------------------------------- */

static dm_status check(const dm_model *model, const dm_evaluate_options *options, double limit) {
    const dm_router_options *router = options->router;
    if (model->config.n_experts == 0) {
        return dm_fail(DM_ERR_ARGUMENT, "this model has no experts: no loss comes of their price");
    }
    if (!(limit >= 0.0 && limit < 1.0)) {
        return dm_fail(DM_ERR_ARGUMENT, "%g is no share of perplexity to lose: expected 0 to below 1", limit);
    }
    if (router == NULL || router->policy != DM_ROUTER_NASH || router->gamma != 0.0 || options->trace != NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "a search for gamma needs the router's game, no gamma of its own, and no trace");
    }
    bool chunk = router->chunk > 1 && options->overlap > 0;
    if (router->resident == 0 && model->streaming == NULL && options->sequences < 2 && !chunk && router->theta == 0.0) {
        return dm_fail(DM_ERR_ARGUMENT,
                       "nothing here has a price: expected resident or streamed experts, sequences side by side, prompts read "
                       "jointly with an overlap, or theta");
    }
    return DM_OK;
}

dm_status dm_evaluate_max_loss(const dm_model *model, const dm_tokenizer *tokenizer, const int32_t *ids, size_t n,
                               const dm_evaluate_options *options, double limit, dm_max_loss_fn on_window, void *user,
                               dm_max_loss_result *result) {
    *result = (dm_max_loss_result){.end = DM_MAX_LOSS_FOUND};
    DM_TRY(check(model, options, limit));
    search s = {model, tokenizer, ids, n, options, limit, on_window, user, result, -1, -1};
    dm_status status = search_all(&s);
    result->chosen = result->end == DM_MAX_LOSS_ALL ? s.high : s.low;
    if (status == DM_ERR_INTERRUPTED) {
        result->interrupted = true;
        status = result->chosen >= 0
                     ? DM_OK
                     : dm_fail(status, "interrupted before a gamma was found that stays within %g%%", 100.0 * limit);
    }
    return status;
}
