/* The table behind dm_train_config: every option's name, kind, place, default, range and help, once. */
#ifndef DM_TRAINING_TRAIN_OPTIONS_H
#define DM_TRAINING_TRAIN_OPTIONS_H

#include "training/train_config.h"

typedef enum dm_option_kind {
    DM_OPTION_TEXT,   /* char *, never NULL */
    DM_OPTION_PATH,   /* char *, NULL for an empty value */
    DM_OPTION_PATHS,  /* dm_string_list, adding up */
    DM_OPTION_COUNT,  /* int64_t, written with or without k, M or G (powers of 1000) */
    DM_OPTION_SEED,   /* uint64_t */
    DM_OPTION_NUMBER, /* double, finite */
    DM_OPTION_BOOL,   /* bool */
    DM_OPTION_NAME,   /* char *, one of `choices` */
    DM_OPTION_CHOICE, /* an enum of int's size: the number beside the name in `choices` */
} dm_option_kind;

typedef struct dm_option_choice {
    const char *name; /* NULL ends the list */
    int value;
} dm_option_choice;

typedef struct dm_train_option {
    const char *name;
    dm_option_kind kind;
    size_t offset;        /* in struct dm_train_config */
    const char *fallback; /* the default, as text */
    double min, max;      /* of a count or a number, both included */
    const dm_option_choice *choices;
    const char *help;
} dm_train_option;

/* NULL past the last. */
const dm_train_option *dm_train_option_at(size_t index);
/* DM_ERR_ARGUMENT, naming the nearest option there is, for an unknown name. */
dm_status dm_train_option_find(const char *name, const dm_train_option **out);

/* Stores `text` in the config's field, which keeps its old value on failure. */
dm_status dm_train_option_parse(const dm_train_option *option, struct dm_train_config *config, const char *text);
/* The field as text that parses to the same value; for paths that is item `index`. *text (malloc) is the caller's to
 * free(), and NULL once there is nothing to write. */
dm_status dm_train_option_print(const dm_train_option *option, const struct dm_train_config *config, size_t index, char **text);
/* True while the field holds its default. */
bool dm_train_option_unset(const dm_train_option *option, const struct dm_train_config *config);

#endif
