/* What the commands share: options, output, signals. */
#ifndef DM_CLI_CLI_H
#define DM_CLI_CLI_H

#include <jansson.h>

#include "dilmodeli.h"

enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

typedef enum cli_kind {
    CLI_FLAG,   /* bool */
    CLI_INT,    /* int64_t */
    CLI_FLOAT,  /* double */
    CLI_STRING, /* const char * */
    CLI_LIST,   /* cli_list; the option may be repeated */
} cli_kind;

typedef struct cli_list {
    const char **items; /* grown by the parser; free(items) */
    size_t count;
} cli_list;

typedef struct cli_option {
    const char *name; /* without the dashes */
    char letter;      /* short form, or 0 */
    cli_kind kind;
    void *value;          /* of the kind's type, holding the default */
    const char *argument; /* name of the value in the help, NULL for flags */
    const char *help;
} cli_option;

typedef struct cli_command {
    const char *name;
    const char *summary;               /* one line */
    int (*run)(int argc, char **argv); /* argv[0] is the command's name */
} cli_command;

typedef struct cli_usage {
    const char *synopsis; /* "dilmodeli run MODEL [options]" */
    const char *summary;  /* what it does, a sentence or more */
    const char *example;  /* shell lines */
    const cli_option *options;
    size_t n_options;
    int min_arguments, max_arguments; /* positional; max -1: any */
} cli_usage;

/* Parses argv[1..], filling options and compacting the positional arguments into argv[0..*n). --help, --threads and
 * --json (see cli_json) are understood everywhere. Returns true to go on; false with *status = what to return. */
bool cli_parse(const cli_usage *usage, int argc, char **argv, int *n, int *status);

/* Name of the command whose options were parsed. */
const char *cli_command_name(void);

/* True if --json was given. */
bool cli_json(void);
/* Prints `object` (taken over) on standard output, one line. */
void cli_print_json(json_t *object);
/* Prints "dilmodeli: MESSAGE" on standard error; returns CLI_FAILED. */
int cli_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same for wrong usage: names the command's --help; returns CLI_USAGE. */
int cli_usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints the library's message; returns CLI_FAILED. */
int cli_fail_status(void);

/* Closes a model that sessions were made of, or NULL, and prints its note if it has one. */
void cli_close_model(dm_model *model);

/* A dm_log_fn: the line on standard error. */
void cli_log_line(void *user, const char *line);

/* Ctrl-C and SIGTERM call dm_interrupt(); a second one ends the process. Calling it again counts from the start. */
void cli_catch_signals(void);
/* The last signal since then; 0: none. */
int cli_signal(void);
/* Waits for standard input; false where a signal came first, whichever thread it went to and however early. */
bool cli_wait_input(void);

/* A mapped file that can no longer be read, as another process cut it short, ends the program with a line that names it. */
void cli_catch_bus_errors(void);

/* "5G", "500M", "64k" or a number of bytes, at least 1. */
bool cli_parse_size(const char *text, uint64_t *out);

/* Reads white-space separated ids from a file; *ids is the caller's to free(). False after printing why. */
bool cli_read_ids(const char *path, int32_t **ids, size_t *n);
/* The same from an argument. */
bool cli_parse_ids(const char *text, int32_t **ids, size_t *n);

/* Reads a whole file, or standard input for "-"; the caller's to free(). NULL after printing why. */
char *cli_read_text(const char *path, size_t *length);

/* The same as tokens of a text with its beginning and its end, of its first `limit` bytes (0: all); *ids is the caller's to
 * free(). False after printing why. */
bool cli_read_tokens(const char *path, const dm_tokenizer *tokenizer, uint64_t limit, int32_t **ids, size_t *n);

/* A JSON string of any bytes; those that are no UTF-8 become U+FFFD. */
json_t *cli_json_text(const char *bytes, size_t length);
/* A number, or null for one that was never measured (NaN). */
json_t *cli_json_figure(double value);
/* An array of token ids. */
json_t *cli_json_ids(const int32_t *ids, size_t n);
/* The "routing" object of run, eval, bench and serve; hit_rate by tier. */
json_t *cli_json_routing(const dm_routing_stats *routing);

/* The "stream" object of them: how many experts there is memory for, and what was read; null where all are in memory. */
json_t *cli_json_stream(const dm_model *model);

/* The same for people, from a line on. */
void cli_print_stream(const dm_model *model);
void cli_print_routing(const dm_routing_stats *routing);

int cmd_bench(int argc, char **argv);
int cmd_calibrate(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_gradcheck(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_nash(int argc, char **argv);
int cmd_new(int argc, char **argv);
int cmd_optimize(int argc, char **argv);
int cmd_quantize(int argc, char **argv);
int cmd_repack(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_tokenizer(int argc, char **argv);
int cmd_topology(int argc, char **argv);
int cmd_train(int argc, char **argv);

#endif
