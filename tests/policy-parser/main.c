/*
 * The kernel's policy parser as a program: a line for each line of standard input, `-` where the kernel refuses the rule, else `+`
 * and the rule as the kernel shows it. Blank lines and comments are `+` alone.
 *
 * Compiled together with the kernel's ima_policy.c, which keeps its rules in a list of its own.
 */
#include "ima_policy.c"

int ima_appraise;
int ima_hash_algo = HASH_ALGO_SHA256;
struct tpm_chip *ima_tpm_chip;
int ima_extra_slots;

/* HASHES: the algorithms that the kernel's crypto has, each between commas. */
int crypto_has_alg(const char *name, u32 type, u32 mask)
{
	char between[64];

	snprintf(between, sizeof(between), ",%s,", name);
	return strstr(HASHES, between) != NULL;
}

int main(void)
{
	static char line[1 << 16], shown[1 << 18];

	ima_init_template_list();
	while (fgets(line, sizeof(line), stdin)) {
		struct seq_file file = { .buf = shown, .size = sizeof(shown) };

		if (ima_parse_add_rule(line) < 0) {
			puts("-");
			continue;
		}
		putchar('+');
		if (!list_empty(&ima_temp_rules)) {
			ima_policy_show(&file, list_entry(ima_temp_rules.next, struct ima_rule_entry, list));
			fwrite(shown, 1, file.count ? file.count - 1 : 0, stdout);
			ima_delete_rules();
		}
		putchar('\n');
	}
	return ferror(stdin) || fflush(stdout) ? 1 : 0;
}
