/* Lines typed at a terminal: with editing and a history that outlives the program where libedit was there when this was built, as
 * the terminal hands them out elsewhere, and from a pipe. */
#ifndef DM_CLI_LINE_EDITOR_H
#define DM_CLI_LINE_EDITOR_H

#include <stdbool.h>

typedef struct cli_line_editor cli_line_editor;

/* `keep` says whether lines are kept in a file: $XDG_STATE_HOME/dilmodeli/history or ~/.local/state/dilmodeli/history, which
 * nobody but its owner can read. NULL after printing why there is none. */
cli_line_editor *cli_line_editor_open(const char *prompt, bool keep);
/* Saves the history. NULL is fine. */
void cli_line_editor_close(cli_line_editor *it);

bool cli_line_editor_is_terminal(const cli_line_editor *it);

/* The next line without its newline, the editor's until the next call; NULL at the end of the input, and where a signal came
 * (cli_signal()), which takes back what was typed. */
const char *cli_line_editor_read(cli_line_editor *it);

#endif
