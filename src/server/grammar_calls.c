/* Rules of calls of functions: their names, and arguments that fit their parameters. */
#include <stdio.h>
#include <string.h>

#include "server/grammar_rules.h"

static void add_text(dm_grammar *g, const char *text) {
    dm_rules_text(g, text, strlen(text));
}

static dm_status add_parameters(dm_grammar *g, const dm_json_rules *json, const dm_function *function, int32_t rule) {
    if (function->parameters == NULL) {
        dm_rules_begin(g, rule);
        add_text(g, "{}");
        dm_rules_end(g);
        return DM_OK;
    }
    dm_status status = dm_rules_schema(g, json, function->parameters, rule);
    if (status != DM_OK) {
        char why[512];
        snprintf(why, sizeof why, "%s", dm_error_message());
        return dm_fail(status, "function '%s': %s", function->name, why);
    }
    return DM_OK;
}

/* A rule for a call of any of them. */
static dm_status add_call(dm_grammar *g, const dm_json_rules *json, const dm_chat_dialect *dialect, const dm_function *functions,
                          size_t n, int32_t rule) {
    for (size_t i = 0; i < n; i++) {
        int32_t arguments = dm_rules_new(g);
        DM_TRY(add_parameters(g, json, &functions[i], arguments));
        dm_rules_begin(g, rule);
        add_text(g, "{\"name\": \"");
        add_text(g, functions[i].name);
        add_text(g, "\", \"");
        add_text(g, dialect->arguments_key);
        add_text(g, "\": ");
        dm_rules_rule(g, arguments);
        add_text(g, "}");
        dm_rules_end(g);
    }
    return DM_OK;
}

dm_status dm_grammar_calls(const dm_chat_dialect *dialect, const dm_function *functions, size_t n, bool several,
                           dm_grammar **out) {
    *out = NULL;
    dm_grammar *g = dm_rules_create();
    if (g == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_json_rules json;
    dm_json_rules_add(g, &json);
    int32_t call = dm_rules_new(g), more = dm_rules_new(g), root = dm_rules_new(g);
    dm_status status = add_call(g, &json, dialect, functions, n, call);
    if (status != DM_OK) {
        dm_grammar_free(g);
        return status;
    }
    bool some = several && dialect->between != NULL;
    dm_rules_begin(g, more);
    add_text(g, some ? dialect->between : "");
    dm_rules_rule(g, call);
    dm_rules_end(g);
    int32_t others = dm_rules_repeat(g, more, 0, some ? -1 : 0);
    dm_rules_begin(g, root);
    add_text(g, dialect->open);
    dm_rules_rule(g, call);
    dm_rules_rule(g, others);
    add_text(g, dialect->close);
    dm_rules_end(g);
    return dm_rules_finish(g, root, out);
}
