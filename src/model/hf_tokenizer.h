/*
 * tokenizer.json and what lies beside it in Hugging Face's folders: tokenizer_config.json (which tokens begin and end a text,
 * the template of conversations), special_tokens_map.json, generation_config.json, chat_template.jinja.
 */
#ifndef DM_MODEL_HF_TOKENIZER_H
#define DM_MODEL_HF_TOKENIZER_H

#include "base/json.h"
#include "model/vocabulary.h"

/* The vocabulary of a folder, for a model of `vocab` tokens: numbers that no token has are filled with tokens that stand for
 * nothing; tokens added beyond the model's are left out, with a line in the log. `config` is config.json's object, asked for
 * what the folder says nowhere else; may be NULL. *out is NULL where the folder has no tokenizer.json nor any other vocabulary.
 */
dm_status dm_hf_tokenizer_read(const char *folder, const json_t *config, int32_t vocab, dm_tokenizer **out);
/* The same from tokenizer.json's object alone, without marks of beginning and end but those that it names itself. */
dm_status dm_hf_tokenizer_parse(const json_t *object, const char *path, int32_t vocab, dm_tokenizer **out);

/* Writes tokenizer.json, tokenizer_config.json and generation_config.json into a folder. */
dm_status dm_hf_tokenizer_write(const dm_tokenizer *tokenizer, int32_t context, const char *folder);

/* The token whose text a JSON string is; -1 where it is none. */
int32_t dm_hf_token(const dm_tokenizer *tokenizer, const json_t *text);

/* The rule that a pre_tokenizer cuts words by; NULL where it is none that is known. */
const dm_pretokenizer *dm_hf_rules_find(const json_t *pre_tokenizer, bool whole_words, char name[48]);
/* The pre_tokenizer for a rule; NULL where there is none, or no memory. */
json_t *dm_hf_rules_write(const dm_pretokenizer *rules);

#endif
