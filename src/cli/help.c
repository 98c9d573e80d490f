#include "cli/help.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

cli_help_kind cli_help_parse(const char *text) {
    if (text == NULL || *text == '\0') {
        return CLI_HELP_TEXT;
    }
    return strcmp(text, "man") == 0 ? CLI_HELP_MAN : strcmp(text, "options") == 0 ? CLI_HELP_OPTIONS : CLI_HELP_NONE;
}

/* " [4]" with these brackets, or nothing where there is no default worth a word. */
static void print_default(const cli_option *option, const char *open, const char *close) {
    switch (option->kind) {
    case CLI_INT:
        printf("%s%lld%s", open, (long long)*(const int64_t *)option->value, close);
        break;
    case CLI_FLOAT:
        printf("%s%g%s", open, *(const double *)option->value, close);
        break;
    case CLI_STRING:
        if (*(const char *const *)option->value != NULL) {
            printf("%s%s%s", open, *(const char *const *)option->value, close);
        }
        break;
    case CLI_FLAG:
    case CLI_LIST:
        break;
    }
}

/* ---- For people ---------------------------------------------------------- */

static void print_option(const cli_option *option, bool with_default) {
    char left[64];
    char letter[8] = "    ";
    if (option->letter != 0) {
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    }
    int n = snprintf(left, sizeof left, "%s--%s", letter, option->name);
    if (option->argument != NULL && n > 0 && (size_t)n < sizeof left) {
        snprintf(left + n, sizeof left - (size_t)n, " %s", option->argument);
    }
    printf("  %-28s %s", left, option->help);
    if (with_default) {
        print_default(option, " [", "]");
    }
    printf("\n");
}

static void print_text(const cli_usage *usage, const cli_option *common, size_t n_common) {
    printf("usage: %s\n\n%s\n\n", usage->synopsis, usage->summary);
    if (usage->n_options > 0) {
        printf("options [default]:\n");
        for (size_t i = 0; i < usage->n_options; i++) {
            print_option(&usage->options[i], true);
        }
        printf("\n");
    }
    printf("for every command:\n");
    for (size_t i = 0; i < n_common; i++) {
        print_option(&common[i], false);
    }
    printf("\nexample:\n%s\n", usage->example);
}

/* ---- Manual pages -------------------------------------------------------- */

/* Text in roff: no character of it is a request or an escape, and hyphens are those that one can copy. */
static void roff(const char *text) {
    bool begins = true; /* a line */
    for (; *text != '\0'; text++) {
        if (begins && (*text == '.' || *text == '\'')) {
            fputs("\\&", stdout);
        }
        if (*text == '\\') {
            fputs("\\e", stdout);
        } else if (*text == '-') {
            fputs("\\-", stdout);
        } else {
            putchar(*text);
        }
        begins = *text == '\n';
    }
}

/* The first clause of a text, on one line. */
static void roff_clause(const char *text) {
    char line[160];
    size_t n = 0;
    for (; n + 1 < sizeof line && text[n] != '\0' && strchr(":;(", text[n]) == NULL; n++) {
        if (text[n] == '.' && (text[n + 1] == ' ' || text[n + 1] == '\n' || text[n + 1] == '\0')) {
            break;
        }
        line[n] = text[n];
        if (text[n] == '\n') {
            line[n] = ' ';
        }
    }
    while (n > 0 && line[n - 1] == ' ') {
        n--;
    }
    line[n] = '\0';
    roff(line);
}

static void roff_upper(const char *text) {
    for (; *text != '\0'; text++) {
        putchar(toupper((unsigned char)*text));
    }
}

static void page(const char *name) {
    printf(".TH ");
    roff_upper(name);
    printf(" 1 \"\" \"dilmodeli %s\" \"User Commands\"\n", dm_version());
}

static void man_options(const cli_option *options, size_t n, bool with_default) {
    for (size_t i = 0; i < n; i++) {
        const cli_option *o = &options[i];
        printf(".TP\n");
        if (o->letter != 0) {
            printf("\\fB\\-%c\\fR, ", o->letter);
        }
        printf("\\fB\\-\\-");
        roff(o->name);
        printf("\\fR");
        if (o->argument != NULL) {
            printf(" \\fI");
            roff(o->argument);
            printf("\\fR");
        }
        printf("\n");
        roff(o->help);
        if (with_default) {
            print_default(o, " (default: ", ")");
        }
        printf("\n");
    }
}

static void man_footer(void) {
    printf(".SH EXIT STATUS\n0: done. 1: failed; one line on standard error says why and what to do. 2: wrong usage.\n"
           ".SH SEE ALSO\n.BR dilmodeli (1)\n");
}

static void print_man(const cli_usage *usage, const cli_option *common, size_t n_common) {
    char name[64];
    const char *command = usage->synopsis + strlen("dilmodeli ");
    const int length = (int)strcspn(command, " ");
    snprintf(name, sizeof name, "dilmodeli-%.*s", length, command);
    page(name);
    printf(".SH NAME\n");
    roff(name);
    printf(" \\- ");
    roff_clause(usage->summary);
    printf("\n.SH SYNOPSIS\n.nf\n");
    roff(usage->synopsis);
    printf("\n.fi\n.SH DESCRIPTION\n");
    roff(usage->summary);
    printf("\n.SH OPTIONS\n");
    man_options(usage->options, usage->n_options, true);
    man_options(common, n_common, false);
    printf(".SH EXAMPLES\n.nf\n");
    roff(usage->example);
    printf("\n.fi\n");
    man_footer();
}

/* ---- For shells ---------------------------------------------------------- */

static void print_lines(const cli_option *options, size_t n) {
    for (size_t i = 0; i < n; i++) {
        printf("--%s\t%s\t%s\n", options[i].name, options[i].argument != NULL ? options[i].argument : "", options[i].help);
    }
}

void cli_help_print(cli_help_kind kind, const cli_usage *usage, const cli_option *common, size_t n_common) {
    switch (kind) {
    case CLI_HELP_TEXT:
        print_text(usage, common, n_common);
        break;
    case CLI_HELP_MAN:
        print_man(usage, common, n_common);
        break;
    case CLI_HELP_OPTIONS:
        print_lines(usage->options, usage->n_options);
        print_lines(common, n_common);
        break;
    case CLI_HELP_NONE:
        break;
    }
}

/* ---- The program --------------------------------------------------------- */

static void program_text(const cli_command *commands, FILE *stream) {
    fprintf(stream, "dilmodeli %s: small, balanced and fast language models on ordinary CPUs\n\n", dm_version());
    fprintf(stream, "usage: dilmodeli COMMAND [ARGUMENTS]\n\ncommands:\n");
    for (const cli_command *command = commands; command->name != NULL; command++) {
        fprintf(stream, "  %-12s %s\n", command->name, command->summary);
    }
    fprintf(stream, "\n`dilmodeli COMMAND --help` explains one, with an example.\n");
}

static void program_man(const cli_command *commands) {
    page("dilmodeli");
    printf(".SH NAME\ndilmodeli \\- small, balanced and fast language models on ordinary CPUs\n"
           ".SH SYNOPSIS\n\\fBdilmodeli\\fR \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]\n.SH COMMANDS\n");
    for (const cli_command *command = commands; command->name != NULL; command++) {
        printf(".TP\n\\fBdilmodeli\\-");
        roff(command->name);
        printf("\\fR(1)\n");
        roff(command->summary);
        printf("\n");
    }
    man_footer();
}

void cli_help_print_program(cli_help_kind kind, const cli_command *commands, FILE *stream) {
    if (kind == CLI_HELP_MAN) {
        program_man(commands);
    } else if (kind == CLI_HELP_OPTIONS) {
        for (const cli_command *command = commands; command->name != NULL; command++) {
            printf("%s\t%s\n", command->name, command->summary);
        }
    } else {
        program_text(commands, stream);
    }
}
