/*
 * What the kernel's policy parser needs of the rest of the kernel, for a program in user space. qemu/policy-parsers puts it in
 * place of every header that it does not take from the kernel's source.
 *
 * Only what ima_parse_add_rule() and ima_policy_show() reach does something. The rest is there to compile: the functions that
 * match rules with files are compiled with the parser and never called.
 */
#ifndef POLICY_PARSER_KERNEL_H
#define POLICY_PARSER_KERNEL_H

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

/* Types and annotations */
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;
typedef int32_t s32;
typedef int16_t s16;
typedef int8_t s8;
typedef u8 __u8;
typedef u16 __u16;
typedef u32 __u32;
typedef u64 __u64;
typedef u16 __be16;
typedef u32 __be32;
typedef u16 __le16;
typedef u32 __le32;
typedef u64 __le64;
typedef unsigned int gfp_t;
typedef unsigned short umode_t;
typedef int key_perm_t;
typedef struct { int counter; } atomic_t;
typedef struct { long counter; } atomic_long_t;
typedef struct { int unused; } spinlock_t;
typedef struct { u8 b[16]; } uuid_t;
typedef struct { u8 b[16]; } guid_t;
struct mutex { int unused; };

#define __init
#define __initdata
#define __ro_after_init
#define __rcu
#define __user
#define __force
#define __must_check
#define __counted_by(member)
#define __pure
#define noinline
#define __packed __attribute__((packed))
#define __printf(a, b)
#define fallthrough __attribute__((fallthrough))
#define EXPORT_SYMBOL(name)
#define EXPORT_SYMBOL_GPL(name)
#define __setup(name, function) \
	static int (*const setup_##function)(char *) __attribute__((unused)) = function
#define __struct_group(TAG, NAME, ATTRIBUTES, MEMBERS...) \
	union { \
		struct { MEMBERS } ATTRIBUTES; \
		struct TAG { MEMBERS } ATTRIBUTES NAME; \
	} ATTRIBUTES
#define likely(x) (x)
#define unlikely(x) (x)
#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define sizeof_field(type, member) sizeof(((type *)0)->member)
#define struct_size(pointer, member, count) (sizeof(*(pointer)) + sizeof((pointer)->member[0]) * (count))
#define WARN_ON_ONCE(x) (x)
#define static_assert _Static_assert
#define check_mul_overflow(a, b, result) __builtin_mul_overflow(a, b, result)
#define check_add_overflow(a, b, result) __builtin_add_overflow(a, b, result)

/* include/linux/kconfig.h: whether an option is y; nothing here is a module. */
#define PLACEHOLDER_1 0,
#define take_second(ignored, value, ...) value
#define IS_ENABLED(option) is_defined(option)
#define IS_BUILTIN(option) is_defined(option)
#define is_defined(x) is_defined_(x)
#define is_defined_(value) is_defined__(PLACEHOLDER_##value)
#define is_defined__(argument) take_second(argument 1, 0, 0)

/* Memory. Not freed where the kernel does: the program ends after a million short lines. */
#define GFP_KERNEL 0
#define GFP_NOFS 0
#define GFP_ATOMIC 0
#define kmalloc(size, flags) malloc(size)
#define kzalloc(size, flags) calloc(1, size)
#define kcalloc(count, size, flags) calloc(count, size)
#define kmalloc_array(count, size, flags) calloc(count, size)
#define kzalloc_obj(object, ...) calloc(1, sizeof(object))
#define kzalloc_objs(object, count, ...) calloc(count, sizeof(object))
#define kmalloc_objs(object, count, ...) calloc(count, sizeof(object))
#define kzalloc_flex(object, member, count, ...) calloc(1, struct_size(&(object), member, count))
#define kfree(pointer) free((void *)(pointer))
#define kstrdup(text, flags) strdup(text)

static inline void *kmemdup(const void *from, size_t length, gfp_t flags)
{
	void *copy = malloc(length);

	return copy ? memcpy(copy, from, length) : NULL;
}

static inline char *kmemdup_nul(const char *from, size_t length, gfp_t flags)
{
	return strndup(from, length);
}

static inline void *ERR_PTR(long error)
{
	return (void *)error;
}

static inline long PTR_ERR(const void *pointer)
{
	return (long)pointer;
}

static inline bool IS_ERR(const void *pointer)
{
	return (unsigned long)pointer >= (unsigned long)-4095;
}

/* lib/string.c, include/linux/ctype.h, include/linux/kstrtox.h */
#define _tolower(c) ((c) | 0x20)
#define strchrnul(text, c) __builtin_strchrnul_(text, c)
static inline char *__builtin_strchrnul_(const char *text, int c)
{
	while (*text && *text != c)
		text++;
	return (char *)text;
}

static inline ssize_t strscpy(char *to, const char *from, size_t size)
{
	return snprintf(to, size, "%s", from) < (int)size ? (ssize_t)strlen(to) : -E2BIG;
}

static inline size_t kernel_strlcpy(char *to, const char *from, size_t size)
{
	return snprintf(to, size, "%s", from);
}

static inline int match_string(const char *const *array, size_t count, const char *text)
{
	for (size_t i = 0; i < count && array[i]; i++)
		if (strcmp(array[i], text) == 0)
			return i;
	return -EINVAL;
}

static inline int hex_to_bin(unsigned char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (_tolower(c) >= 'a' && _tolower(c) <= 'f')
		return _tolower(c) - 'a' + 10;
	return -1;
}

static inline u64 div_u64(u64 dividend, u32 divisor)
{
	return dividend / divisor;
}

static inline u64 int_pow(u64 base, unsigned int exponent)
{
	u64 result = 1;

	while (exponent--)
		result *= base;
	return result;
}

static inline unsigned long copy_from_user(void *to, const void *from, unsigned long length)
{
	memcpy(to, from, length);
	return 0;
}

#define min(a, b) ((a) < (b) ? (a) : (b))
static inline void get_random_bytes(void *to, size_t length) {}

int kstrtoull(const char *s, unsigned int base, unsigned long long *result);
int kstrtoll(const char *s, unsigned int base, long long *result);
int kstrtoint(const char *s, unsigned int base, int *result);
int kstrtouint(const char *s, unsigned int base, unsigned int *result);
/* As include/linux/kernel.h has it where long and long long are alike. */
static inline int kstrtoul(const char *s, unsigned int base, unsigned long *result)
{
	return kstrtoull(s, base, (unsigned long long *)result);
}

/* include/linux/args.h */
#define COUNT_ARGS_(ignored, third, second, first, count, ...) count
#define COUNT_ARGS(arguments...) COUNT_ARGS_(, ##arguments, 3, 2, 1, 0)
#define CONCATENATE_(a, b) a##b
#define CONCATENATE(a, b) CONCATENATE_(a, b)

/* include/linux/uuid.h */
#define UUID_SIZE 16
#define UUID_STRING_LEN 36
extern const guid_t guid_null;
extern const uuid_t uuid_null;
extern const u8 guid_index[16];
extern const u8 uuid_index[16];
int uuid_parse(const char *text, uuid_t *uuid);
static inline bool uuid_equal(const uuid_t *a, const uuid_t *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}
static inline bool uuid_is_null(const uuid_t *uuid)
{
	return uuid_equal(uuid, &uuid_null);
}

/* include/linux/list.h */
struct list_head { struct list_head *next, *prev; };
struct hlist_node { struct hlist_node *next, **pprev; };
struct hlist_head { struct hlist_node *first; };
#define LIST_HEAD(name) struct list_head name = { &(name), &(name) }
#define container_of(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))
#define list_entry(pointer, type, member) container_of(pointer, type, member)
#define list_for_each_entry(at, head, member) \
	for (at = list_entry((head)->next, typeof(*at), member); &at->member != (head); \
	     at = list_entry(at->member.next, typeof(*at), member))
#define list_entry_rcu list_entry
#define list_for_each_entry_rcu(at, head, member, ...) list_for_each_entry(at, head, member)
#define list_for_each_entry_safe(at, following, head, member) \
	for (at = list_entry((head)->next, typeof(*at), member), \
	     following = list_entry(at->member.next, typeof(*at), member); &at->member != (head); \
	     at = following, following = list_entry(following->member.next, typeof(*following), member))

static inline void INIT_LIST_HEAD(struct list_head *list)
{
	list->next = list->prev = list;
}

static inline bool list_empty(const struct list_head *list)
{
	return list->next == list;
}

static inline void list_add_tail(struct list_head *item, struct list_head *list)
{
	item->prev = list->prev;
	item->next = list;
	list->prev->next = item;
	list->prev = item;
}
#define list_add_tail_rcu list_add_tail

static inline void list_del(struct list_head *item)
{
	item->prev->next = item->next;
	item->next->prev = item->prev;
}

static inline void list_replace_rcu(struct list_head *old, struct list_head *new) {}
static inline void list_splice_tail_init_rcu(struct list_head *from, struct list_head *to, void (*sync)(void)) {}

/* include/linux/bitmap.h */
#define DECLARE_BITMAP(name, bits) unsigned long name[1]
#define bitmap_zero(map, bits) ((map)[0] = 0)
#define bitmap_set(map, from, count) ((map)[0] |= ((1UL << (count)) - 1) << (from))
#define bitmap_full(map, bits) ((map)[0] == (1UL << (bits)) - 1)

/* One thread: no locks. */
#define rcu_read_lock() do {} while (0)
#define rcu_read_unlock() do {} while (0)
#define rcu_dereference(pointer) (pointer)
#define rcu_assign_pointer(pointer, value) ((pointer) = (value))
#define synchronize_rcu synchronize_rcu
static inline void synchronize_rcu(void) {}
#define DEFINE_SPINLOCK(name) spinlock_t name __attribute__((unused))
#define spin_lock(lock) do {} while (0)
#define spin_unlock(lock) do {} while (0)
#define lockdep_assert_held(lock) do {} while (0)
#define atomic_set(atomic, value) ((atomic)->counter = (value))
#define atomic_read(atomic) ((atomic)->counter)
static inline int atomic_cmpxchg(atomic_t *atomic, int old, int new)
{
	int found = atomic->counter;

	if (found == old)
		atomic->counter = new;
	return found;
}

/* Messages, and the audit log: nobody reads them. */
#define pr_info(...) do {} while (0)
#define pr_warn(...) do {} while (0)
#define pr_err(...) do {} while (0)
#define pr_notice(...) do {} while (0)
#define pr_notice_once(...) do {} while (0)
struct audit_buffer;
struct audit_context;
enum { Audit_equal = 4 };
enum {
	AUDIT_SUBJ_USER = 13, AUDIT_SUBJ_ROLE, AUDIT_SUBJ_TYPE, AUDIT_OBJ_USER = 19, AUDIT_OBJ_ROLE, AUDIT_OBJ_TYPE,
	AUDIT_INTEGRITY_STATUS = 1802, AUDIT_INTEGRITY_PCR = 1804, AUDIT_INTEGRITY_POLICY_RULE = 1807,
};
#define audit_context() NULL
#define audit_log_start(context, flags, type) NULL
#define audit_log_format(buffer, ...) do { (void)(buffer); } while (0)
#define audit_log_end(buffer) do {} while (0)

/* User and group ids: every namespace is the first one. */
typedef struct { uid_t val; } kuid_t;
typedef struct { gid_t val; } kgid_t;
typedef struct { uid_t val; } vfsuid_t;
typedef struct { gid_t val; } vfsgid_t;
#define KUIDT_INIT(value) ((kuid_t){ value })
#define KGIDT_INIT(value) ((kgid_t){ value })
#define INVALID_UID KUIDT_INIT(-1)
#define INVALID_GID KGIDT_INIT(-1)
#define GLOBAL_ROOT_UID KUIDT_INIT(0)
#define GLOBAL_ROOT_GID KGIDT_INIT(0)
#define current_user_ns() NULL
#define make_kuid(namespace, id) KUIDT_INIT(id)
#define make_kgid(namespace, id) KGIDT_INIT(id)
static inline uid_t __kuid_val(kuid_t id) { return id.val; }
static inline gid_t __kgid_val(kgid_t id) { return id.val; }
static inline uid_t __vfsuid_val(vfsuid_t id) { return id.val; }
static inline gid_t __vfsgid_val(vfsgid_t id) { return id.val; }
static inline bool uid_valid(kuid_t id) { return id.val != (uid_t)-1; }
static inline bool gid_valid(kgid_t id) { return id.val != (gid_t)-1; }
static inline bool uid_eq(kuid_t a, kuid_t b) { return a.val == b.val; }
static inline bool uid_gt(kuid_t a, kuid_t b) { return a.val > b.val; }
static inline bool uid_lt(kuid_t a, kuid_t b) { return a.val < b.val; }
static inline bool gid_eq(kgid_t a, kgid_t b) { return a.val == b.val; }
static inline bool gid_gt(kgid_t a, kgid_t b) { return a.val > b.val; }
static inline bool gid_lt(kgid_t a, kgid_t b) { return a.val < b.val; }
static inline bool vfsuid_eq_kuid(vfsuid_t a, kuid_t b) { return a.val == b.val; }
static inline bool vfsgid_eq_kgid(vfsgid_t a, kgid_t b) { return a.val == b.val; }

/* Files, as far as rules look at them */
#define MAY_EXEC 1
#define MAY_WRITE 2
#define MAY_READ 4
#define MAY_APPEND 8
#define CAP_SETUID 7
#define CAP_SETGID 6
struct user_namespace;
struct mnt_idmap;
struct file;
struct path;
struct dentry;
struct key;
struct crypto_shash;
struct notifier_block;
struct integrity_iint_cache_tree;
struct rb_node { int unused; };
struct lsm_prop { u32 secid; };
struct lsm_id;
struct lsm_blob_sizes { int lbs_inode; };
struct cred { kuid_t uid, euid, suid; kgid_t gid, egid, sgid; };
struct file_system_type { const char *name; };
struct super_block { unsigned long s_magic; struct file_system_type *s_type; char *s_subtype; uuid_t s_uuid; };
struct inode { struct super_block *i_sb; kuid_t i_uid; kgid_t i_gid; void *i_security; };
#define has_capability_noaudit(task, capability) false
#define current NULL
static inline kuid_t i_uid_into_mnt(struct user_namespace *namespace, const struct inode *inode) { return inode->i_uid; }
static inline kgid_t i_gid_into_mnt(struct user_namespace *namespace, const struct inode *inode) { return inode->i_gid; }
static inline vfsuid_t i_uid_into_vfsuid(struct mnt_idmap *idmap, const struct inode *inode)
{
	return (vfsuid_t){ inode->i_uid.val };
}
static inline vfsgid_t i_gid_into_vfsgid(struct mnt_idmap *idmap, const struct inode *inode)
{
	return (vfsgid_t){ inode->i_gid.val };
}
static inline void security_inode_getsecid(struct inode *inode, u32 *secid) {}
static inline void security_inode_getlsmprop(struct inode *inode, struct lsm_prop *prop) {}
static inline void security_cred_getlsmprop(const struct cred *cred, struct lsm_prop *prop) {}
/* Every label is one that the security module knows. */
static inline int security_audit_rule_init(u32 field, u32 op, char *label, void **rule, ...)
{
	*rule = label;
	return 0;
}
static inline void security_audit_rule_free(void *rule) {}
#define security_audit_rule_match(...) 0
/* The same functions, as 6.1 declares them. */
#define ima_filter_rule_free_is_defined
#define LSM_POLICY_CHANGE 0
#define NOTIFY_DONE 0
#define NOTIFY_OK 1

/* include/linux/kernel_read_file.h */
enum kernel_read_file_id {
	READING_UNKNOWN, READING_FIRMWARE, READING_MODULE, READING_KEXEC_IMAGE, READING_KEXEC_INITRAMFS, READING_POLICY,
	READING_X509_CERTIFICATE, READING_MODULE_COMPRESSED, READING_MAX_ID,
};
enum kernel_load_data_id { LOADING_UNKNOWN };

/* include/linux/integrity.h */
enum integrity_status {
	INTEGRITY_PASS, INTEGRITY_PASS_IMMUTABLE, INTEGRITY_FAIL, INTEGRITY_FAIL_IMMUTABLE, INTEGRITY_NOLABEL, INTEGRITY_NOXATTRS,
	INTEGRITY_UNKNOWN,
};
struct integrity_inode_attributes { u64 version; unsigned long ino; dev_t dev; };
struct integrity_iint_cache;

/* crypto/hash.h, crypto/sha1.h, linux/tpm.h, linux/magic.h */
#define MD5_DIGEST_SIZE 16
#define SHA1_DIGEST_SIZE 20
#define SHA224_DIGEST_SIZE 28
#define SHA256_DIGEST_SIZE 32
#define SHA384_DIGEST_SIZE 48
#define SHA512_DIGEST_SIZE 64
#define SHA3_256_DIGEST_SIZE 32
#define SHA3_384_DIGEST_SIZE 48
#define SHA3_512_DIGEST_SIZE 64
#define STREEBOG256_DIGEST_SIZE 32
#define STREEBOG512_DIGEST_SIZE 64
#define TPM_DIGEST_SIZE 20
#define HASH_MAX_DIGESTSIZE 64
#define TPM_MAX_DIGEST_SIZE 64
struct tpm_digest { u16 alg_id; u8 digest[64]; };
struct tpm_bank_info { u16 alg_id, digest_size, crypto_id; };
struct tpm_chip { u32 nr_allocated_banks; struct tpm_bank_info *allocated_banks; };
int crypto_has_alg(const char *name, u32 type, u32 mask);
enum {
	PROC_SUPER_MAGIC = 0x9fa0, SYSFS_MAGIC = 0x62656572, DEBUGFS_MAGIC = 0x64626720, TMPFS_MAGIC = 0x01021994,
	RAMFS_MAGIC = 0x858458f6, DEVPTS_SUPER_MAGIC = 0x1cd1, BINFMTFS_MAGIC = 0x42494e4d, SECURITYFS_MAGIC = 0x73636673,
	SELINUX_MAGIC = 0xf97cff8c, SMACK_MAGIC = 0x43415d53, CGROUP_SUPER_MAGIC = 0x27e0eb, CGROUP2_SUPER_MAGIC = 0x63677270,
	NSFS_MAGIC = 0x6e736673, EFIVARFS_MAGIC = 0xde5e81e4, CONFIGFS_MAGIC = 0x62656570,
};

/* include/linux/seq_file.h, for ima_policy_show() */
struct seq_file { char *buf; size_t size, from, count, read_pos; void *private; };
static inline bool seq_has_overflowed(struct seq_file *file)
{
	return file->count == file->size;
}
static inline void seq_printf(struct seq_file *file, const char *format, ...)
{
	va_list arguments;
	int written;

	va_start(arguments, format);
	written = vsnprintf(file->buf + file->count, file->size - file->count, format, arguments);
	va_end(arguments);
	file->count = file->count + written < file->size ? file->count + written : file->size;
}
#define seq_puts(file, text) seq_printf(file, "%s", text)
#define seq_putc(file, c) seq_printf(file, "%c", c)

const char *const *arch_get_ima_policy(void);
int ima_measure_critical_data(const char *label, const char *name, const void *data, size_t length, bool hash, u8 *digest,
			      size_t digest_length);

#endif
