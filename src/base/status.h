/* Status codes with words: how every fallible function reports. */
#ifndef DM_BASE_STATUS_H
#define DM_BASE_STATUS_H

#include "dilmodeli.h"

/* Stores the message for dm_error_message() in this thread and returns
 * `code`. Say which file, which tensor, what was expected. */
dm_status dm_fail(dm_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "context: " before the stored message; for adding a path on the way up. Returns `code`. */
dm_status dm_fail_in(dm_status code, const char *context);

#ifdef __clang_analyzer__
/* Tells the analyzer, which sees no bodies of other files, that what went in comes out: a failure is never DM_OK. */
static inline dm_status dm_same_status(dm_status code, dm_status result) {
    (void)result;
    return code;
}
#define dm_fail(code, ...) dm_same_status(code, dm_fail(code, __VA_ARGS__))
#define dm_fail_in(code, context) dm_same_status(code, dm_fail_in(code, context))
#endif

/* Passes a failure on to the caller. */
#define DM_TRY(expression)                                                                                                       \
    do {                                                                                                                         \
        dm_status dm_try_status_ = (expression);                                                                                 \
        if (dm_try_status_ != DM_OK) {                                                                                           \
            return dm_try_status_;                                                                                               \
        }                                                                                                                        \
    } while (0)

/* Sends a line to the log callback, if one is set. */
void dm_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* True once dm_interrupt() was called. */
bool dm_interrupted(void);

#endif
