/* What a command says of itself: help for people, a manual page, and its options for completion in shells. */
#ifndef DM_CLI_HELP_H
#define DM_CLI_HELP_H

#include <stdio.h>

#include "cli/cli.h"

typedef enum cli_help_kind {
    CLI_HELP_NONE,
    CLI_HELP_TEXT,    /* --help */
    CLI_HELP_MAN,     /* --help=man: a page in roff */
    CLI_HELP_OPTIONS, /* --help=options: a line each, "--name<TAB>VALUE<TAB>what it does"; VALUE is empty for flags */
} cli_help_kind;

/* "" or NULL, "man", "options"; CLI_HELP_NONE for anything else. */
cli_help_kind cli_help_parse(const char *text);

/* Prints it. `common` are the options of every command. */
void cli_help_print(cli_help_kind kind, const cli_usage *usage, const cli_option *common, size_t n_common);

/* Of the program itself; `commands` end with one that has no name. With CLI_HELP_OPTIONS a line for each of them,
 * "name<TAB>summary". */
void cli_help_print_program(cli_help_kind kind, const cli_command *commands, FILE *stream);

#endif
