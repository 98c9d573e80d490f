/* Parsing of options and the help text that goes with them. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/help.h"

static bool json;
static int64_t threads;
static const char *command_name = "dilmodeli";

static const cli_option common[] = {
    {"threads", 't', CLI_INT, &threads, "N", "threads to use (default: one per core)"},
    {"json", 0, CLI_FLAG, &json, NULL, "print one JSON object on standard output and nothing else there"},
    {"help", 'h', CLI_FLAG, NULL, NULL, "show this help; --help=man: as a manual page, --help=options: for shells"},
};
enum { N_COMMON = sizeof common / sizeof *common };

bool cli_json(void) {
    return json;
}

/* `length` characters of `name` against the long names, or one character against the letters. */
static const cli_option *find(const cli_option *options, size_t n, const char *name, size_t length, char letter) {
    for (size_t i = 0; i < n; i++) {
        bool same = letter != 0 ? options[i].letter == letter
                                : strncmp(options[i].name, name, length) == 0 && options[i].name[length] == '\0';
        if (same) {
            return &options[i];
        }
    }
    return NULL;
}

static bool store(const cli_option *option, const char *text) {
    char *end = NULL;
    errno = 0;
    switch (option->kind) {
    case CLI_FLAG:
        *(bool *)option->value = true;
        return true;
    case CLI_INT: {
        long long value = strtoll(text, &end, 10);
        if (end == text || *end != '\0' || errno != 0) {
            cli_usage_error("--%s expects a whole number, not '%s'", option->name, text);
            return false;
        }
        *(int64_t *)option->value = value;
        return true;
    }
    case CLI_FLOAT: {
        double value = strtod(text, &end);
        if (end == text || *end != '\0' || !isfinite(value)) {
            cli_usage_error("--%s expects a number, not '%s'", option->name, text);
            return false;
        }
        *(double *)option->value = value;
        return true;
    }
    case CLI_STRING:
        *(const char **)option->value = text;
        return true;
    case CLI_LIST: {
        cli_list *list = option->value;
        const char **items = realloc(list->items, (list->count + 1) * sizeof *items);
        if (items == NULL) {
            cli_usage_error("out of memory reading --%s", option->name);
            return false;
        }
        items[list->count++] = text;
        list->items = items;
        return true;
    }
    }
    return false;
}

/* An option's value may follow after '=', joined to a short form, or as the next argument; a list goes on to the next
 * option. */
static bool take(const cli_option *option, const char *attached, int argc, char **argv, int *i) {
    if (option->kind == CLI_FLAG) {
        if (attached != NULL) {
            cli_usage_error("--%s takes no value", option->name);
            return false;
        }
        return store(option, NULL);
    }
    if (attached != NULL) {
        return store(option, attached);
    }
    if (*i + 1 >= argc) {
        cli_usage_error("--%s needs a value (%s)", option->name, option->argument);
        return false;
    }
    if (!store(option, argv[++*i])) {
        return false;
    }
    while (option->kind == CLI_LIST && *i + 1 < argc && argv[*i + 1][0] != '-') {
        if (!store(option, argv[++*i])) {
            return false;
        }
    }
    return true;
}

static bool parse_one(const cli_usage *usage, int argc, char **argv, int *i, cli_help_kind *help) {
    const char *text = argv[*i];
    const char *attached = NULL;
    const cli_option *option;
    if (text[1] == '-') {
        size_t length = strcspn(text + 2, "=");
        attached = text[2 + length] == '=' ? text + 2 + length + 1 : NULL;
        option = find(usage->options, usage->n_options, text + 2, length, 0);
        if (option == NULL) {
            option = find(common, N_COMMON, text + 2, length, 0);
        }
    } else {
        attached = text[2] != '\0' ? text + 2 : NULL;
        option = find(usage->options, usage->n_options, NULL, 0, text[1]);
        if (option == NULL) {
            option = find(common, N_COMMON, NULL, 0, text[1]);
        }
    }
    if (option == NULL) {
        cli_usage_error("unknown option '%s'", text);
        return false;
    }
    if (option->value == NULL) {
        *help = cli_help_parse(attached);
        return *help != CLI_HELP_NONE ||
               (cli_usage_error("--help=%s: there are --help, --help=man, --help=options", attached), false);
    }
    return take(option, attached, argc, argv, i);
}

bool cli_parse(const cli_usage *usage, int argc, char **argv, int *n, int *status) {
    command_name = argv[0];
    int count = 0;
    cli_help_kind help = CLI_HELP_NONE;
    bool only_arguments = false;
    *status = CLI_USAGE;
    for (int i = 1; i < argc; i++) {
        if (only_arguments || argv[i][0] != '-' || argv[i][1] == '\0') {
            argv[count++] = argv[i];
        } else if (strcmp(argv[i], "--") == 0) {
            only_arguments = true;
        } else if (!parse_one(usage, argc, argv, &i, &help)) {
            return false;
        }
        if (help != CLI_HELP_NONE) {
            cli_help_print(help, usage, common, N_COMMON);
            *status = CLI_DONE;
            return false;
        }
    }
    if (count < usage->min_arguments || (usage->max_arguments >= 0 && count > usage->max_arguments)) {
        cli_usage_error("usage: %s", usage->synopsis);
        return false;
    }
    if (threads < 0 || threads > 1024) {
        cli_usage_error("--threads expects 1 to 1024");
        return false;
    }
    dm_set_threads((int)threads);
    *n = count;
    *status = CLI_DONE;
    return true;
}

const char *cli_command_name(void) {
    return command_name;
}
