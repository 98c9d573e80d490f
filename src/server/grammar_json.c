/* Rules of JSON (RFC 8259): text that any reader takes, with little white space and numbers of a length that ends. */
#include "server/grammar_rules.h"

/* Nothing, a space, or a new line with some indentation. */
static int32_t add_space(dm_grammar *g) {
    enum { INDENTATION = 20 };
    int32_t blank = dm_rules_new(g), rule = dm_rules_new(g);
    dm_rules_begin(g, blank);
    dm_rules_bytes(g, " \t");
    dm_rules_end(g);
    int32_t blanks = dm_rules_repeat(g, blank, 0, INDENTATION);
    dm_rules_begin(g, rule);
    dm_rules_end(g);
    dm_rules_begin(g, rule);
    dm_rules_bytes(g, " ");
    dm_rules_end(g);
    dm_rules_begin(g, rule);
    dm_rules_bytes(g, "\n");
    dm_rules_rule(g, blanks);
    dm_rules_end(g);
    return rule;
}

/* An alternative of bytes out of these sets, one after another. */
static void add_bytes(dm_grammar *g, int32_t rule, const char *const *sets) {
    dm_rules_begin(g, rule);
    for (; *sets != NULL; sets++) {
        dm_rules_bytes(g, *sets);
    }
    dm_rules_end(g);
}

/* A character of UTF-8 beyond ASCII, without overlong forms and surrogates. */
static int32_t add_wide(dm_grammar *g) {
#define LATER "\x80-\xbf"
    static const char *const forms[][5] = {
        {"\xc2-\xdf", LATER},
        {"\xe0", "\xa0-\xbf", LATER},
        {"\xe1-\xec\xee\xef", LATER, LATER},
        {"\xed", "\x80-\x9f", LATER},
        {"\xf0", "\x90-\xbf", LATER, LATER},
        {"\xf1-\xf3", LATER, LATER, LATER},
        {"\xf4", "\x80-\x8f", LATER, LATER},
    };
    int32_t rule = dm_rules_new(g);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        add_bytes(g, rule, forms[i]);
    }
    return rule;
}

/* A character of a string, or an escape, surrogates in pairs. */
static int32_t add_character(dm_grammar *g, int32_t wide) {
#define HEX "0-9a-fA-F"
    static const char *const forms[][13] = {
        {" !#-[]-~\x7f"},
        {"\\", "\"\\/bfnrt"},
        {"\\", "u", "0-9a-cA-Ce-fE-F", HEX, HEX, HEX},
        {"\\", "u", "dD", "0-7", HEX, HEX},
        {"\\", "u", "dD", "89abAB", HEX, HEX, "\\", "u", "dD", "c-fC-F", HEX, HEX},
    };
    int32_t rule = dm_rules_new(g);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        add_bytes(g, rule, forms[i]);
    }
    dm_rules_either(g, rule, wide);
    return rule;
}

static int32_t add_string(dm_grammar *g, int32_t character) {
    int32_t rule = dm_rules_new(g), characters = dm_rules_repeat(g, character, 0, -1);
    dm_rules_begin(g, rule);
    dm_rules_bytes(g, "\"");
    dm_rules_rule(g, characters);
    dm_rules_bytes(g, "\"");
    dm_rules_end(g);
    return rule;
}

static int32_t add_digits(dm_grammar *g, int32_t least, int32_t most) {
    int32_t digit = dm_rules_new(g);
    add_bytes(g, digit, (const char *const[]){"0-9", NULL});
    return dm_rules_repeat(g, digit, least, most);
}

/* A rule for nothing or `item`. */
static int32_t add_optional(dm_grammar *g, int32_t item) {
    return dm_rules_repeat(g, item, 0, 1);
}

static void add_numbers(dm_grammar *g, dm_json_rules *out) {
    enum { DIGITS = 15, FRACTION = 16, EXPONENT = 2 }; /* a double's digits and nearly its range */
    int32_t magnitude = dm_rules_new(g), minus = dm_rules_new(g), sign = dm_rules_new(g), point = dm_rules_new(g),
            power = dm_rules_new(g);
    int32_t digits = add_digits(g, 0, DIGITS - 1), fraction = add_digits(g, 1, FRACTION), exponent = add_digits(g, 1, EXPONENT);
    add_bytes(g, magnitude, (const char *const[]){"0", NULL});
    dm_rules_begin(g, magnitude);
    dm_rules_bytes(g, "1-9");
    dm_rules_rule(g, digits);
    dm_rules_end(g);
    add_bytes(g, minus, (const char *const[]){"-", NULL});
    add_bytes(g, sign, (const char *const[]){"-+", NULL});
    dm_rules_begin(g, point);
    dm_rules_bytes(g, ".");
    dm_rules_rule(g, fraction);
    dm_rules_end(g);
    int32_t any_minus = add_optional(g, minus), any_sign = add_optional(g, sign);
    dm_rules_begin(g, power);
    dm_rules_bytes(g, "eE");
    dm_rules_rule(g, any_sign);
    dm_rules_rule(g, exponent);
    dm_rules_end(g);
    int32_t any_point = add_optional(g, point), any_power = add_optional(g, power);
    dm_rules_begin(g, out->integer);
    dm_rules_rule(g, any_minus);
    dm_rules_rule(g, magnitude);
    dm_rules_end(g);
    dm_rules_begin(g, out->number);
    dm_rules_rule(g, out->integer);
    dm_rules_rule(g, any_point);
    dm_rules_rule(g, any_power);
    dm_rules_end(g);
}

/* "open" and "close" around any number of `item` with commas between. */
static void add_list(dm_grammar *g, int32_t rule, int32_t item, int32_t space, const char *open, const char *close) {
    int32_t more = dm_rules_new(g), some = dm_rules_new(g);
    dm_rules_begin(g, more);
    dm_rules_bytes(g, ",");
    dm_rules_rule(g, space);
    dm_rules_rule(g, item);
    dm_rules_end(g);
    int32_t rest = dm_rules_repeat(g, more, 0, -1);
    dm_rules_begin(g, some);
    dm_rules_rule(g, item);
    dm_rules_rule(g, rest);
    dm_rules_end(g);
    int32_t any = add_optional(g, some);
    dm_rules_begin(g, rule);
    dm_rules_bytes(g, open);
    dm_rules_rule(g, space);
    dm_rules_rule(g, any);
    dm_rules_rule(g, space);
    dm_rules_bytes(g, close);
    dm_rules_end(g);
}

static int32_t add_literal(dm_grammar *g, const char *first, const char *second) {
    int32_t rule = dm_rules_new(g);
    for (int i = 0; i < 2 && (i == 0 || second != NULL); i++) {
        const char *text = i == 0 ? first : second;
        dm_rules_begin(g, rule);
        while (*text != '\0') {
            dm_rules_text(g, text++, 1);
        }
        dm_rules_end(g);
    }
    return rule;
}

void dm_json_rules_add(dm_grammar *g, dm_json_rules *out) {
    out->value = dm_rules_new(g);
    out->object = dm_rules_new(g);
    out->array = dm_rules_new(g);
    out->integer = dm_rules_new(g);
    out->number = dm_rules_new(g);
    out->space = add_space(g);
    out->wide = add_wide(g);
    out->character = add_character(g, out->wide);
    out->string = add_string(g, out->character);
    out->boolean = add_literal(g, "true", "false");
    out->null = add_literal(g, "null", NULL);
    add_numbers(g, out);
    int32_t member = dm_rules_new(g);
    dm_rules_begin(g, member);
    dm_rules_rule(g, out->string);
    dm_rules_bytes(g, ":");
    dm_rules_rule(g, out->space);
    dm_rules_rule(g, out->value);
    dm_rules_end(g);
    add_list(g, out->object, member, out->space, "{", "}");
    add_list(g, out->array, out->value, out->space, "[", "]");
    const int32_t kinds[] = {out->object, out->array, out->string, out->number, out->boolean, out->null};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        dm_rules_either(g, out->value, kinds[i]);
    }
}

dm_status dm_grammar_json(dm_grammar **out) {
    *out = NULL;
    dm_grammar *grammar = dm_rules_create();
    if (grammar == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_json_rules json;
    dm_json_rules_add(grammar, &json);
    return dm_rules_finish(grammar, json.object, out);
}
