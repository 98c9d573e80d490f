/* Which documents are kept for validation when nobody named any. */
#ifndef DM_TRAINING_HOLDOUT_H
#define DM_TRAINING_HOLDOUT_H

#include "training/documents.h"

typedef enum dm_holdout_rule {
    DM_HOLDOUT_HASHED, /* documents whose hash falls on one of 60, but never one larger than a tenth of the text */
    DM_HOLDOUT_PICKED, /* none or all fell there: the one whose size is nearest to a 60th */
    DM_HOLDOUT_TAILS,  /* there is no document to spare: the last 60th of each */
} dm_holdout_rule;

typedef struct dm_holdout {
    dm_holdout_rule rule;
    uint64_t largest; /* bytes of a document that may be held out */
    uint64_t picked;  /* hash */
} dm_holdout;

/* Reads the corpus once to choose the rule. DM_ERR_ARGUMENT if it holds no text. */
dm_status dm_holdout_plan(const dm_corpus *corpus, dm_holdout *out);

/* The first bytes of a document are for training, the others for validation; returns how many. Depends on the rule and
 * the document's content alone, so that copies of a document share its fate. */
size_t dm_holdout_split(const dm_holdout *holdout, const dm_document *document);

#endif
