/* Calls of functions, as OpenAI's API words them. */
#include "base/random.h"
#include "server/server_parts.h"

/* Nine letters and digits, which is what Mistral's templates ask for, and others take. */
static json_t *call_id(const dm_answer_head *head, int32_t choice, int32_t call) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    uint64_t number = dm_random_mix(head->number ^ dm_random_mix((uint64_t)(uint32_t)choice << 32 | (uint32_t)call));
    char id[9];
    for (size_t i = 0; i < sizeof id; i++) {
        id[i] = digits[number % (sizeof digits - 1)];
        number /= sizeof digits - 1;
    }
    return json_stringn(id, sizeof id);
}

json_t *dm_call_json(const dm_answer_head *head, int32_t choice, const dm_call_part *part) {
    return json_pack("{s:o, s:s, s:{s:o, s:s}}", "id", call_id(head, choice, part->call), "type", "function", "function", "name",
                     json_stringn(part->text, part->length), "arguments", "");
}

json_t *dm_delta_json(const dm_answer_head *head, int32_t choice, const dm_call_part *part) {
    if (part->kind == DM_PART_TEXT) {
        return json_pack("{s:o}", "content", json_stringn(part->text, part->length));
    }
    json_t *call = part->kind == DM_PART_NAME
                       ? dm_call_json(head, choice, part)
                       : json_pack("{s:{s:o}}", "function", "arguments", json_stringn(part->text, part->length));
    json_object_set_new(call, "index", json_integer(part->call));
    return json_pack("{s:[o]}", "tool_calls", call);
}
