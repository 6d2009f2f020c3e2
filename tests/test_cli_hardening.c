/* What cmake/harden.cmake asks for, read in the program that came of it: its ELF headers, its
 * dynamic section, the names that it imports, and the options that the compiler noted in the debug
 * information. */
#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct {
    char *bytes;
    size_t n;
    const Elf64_Ehdr *header;
    const Elf64_Phdr *segments;
    const Elf64_Shdr *sections;
    const char *section_names;
} elf;

/* n * size bytes of the file at `at`, all of them inside it. */
static const void *part(size_t at, size_t n, size_t size)
{
    assert_true(at <= elf.n && n <= (elf.n - at) / size);
    return elf.bytes + at;
}

static int read_program(void **state)
{
    (void)state;
    FILE *file = fopen(BUILD_DIR "/tinylora", "rb");
    if (!file || fseek(file, 0, SEEK_END)) {
        return 1;
    }
    elf.n = (size_t)ftell(file);
    rewind(file);
    elf.bytes = malloc(elf.n + 1);
    if (!elf.bytes || fread(elf.bytes, 1, elf.n, file) != elf.n || fclose(file)) {
        return 1;
    }
    elf.bytes[elf.n] = 0; /* ends the last string, whatever the file holds */
    elf.header = part(0, 1, sizeof *elf.header);
    elf.segments = part(elf.header->e_phoff, elf.header->e_phnum, sizeof *elf.segments);
    elf.sections = part(elf.header->e_shoff, elf.header->e_shnum, sizeof *elf.sections);
    elf.section_names = part(elf.sections[elf.header->e_shstrndx].sh_offset, 1, 1);
    return 0;
}

static int free_program(void **state)
{
    (void)state;
    free(elf.bytes);
    return 0;
}

static const Elf64_Phdr *segment(uint32_t type)
{
    for (int i = 0; i < elf.header->e_phnum; i++) {
        if (elf.segments[i].p_type == type) {
            return &elf.segments[i];
        }
    }
    return NULL;
}

static const Elf64_Shdr *section(const char *name)
{
    for (int i = 0; i < elf.header->e_shnum; i++) {
        if (strcmp(elf.section_names + elf.sections[i].sh_name, name) == 0) {
            return &elf.sections[i];
        }
    }
    return NULL;
}

/* The value under a tag of the dynamic section, or `absent`. */
static uint64_t dynamic(int64_t tag, uint64_t absent)
{
    const Elf64_Phdr *found = segment(PT_DYNAMIC);
    assert_non_null(found);
    size_t n = found->p_filesz / sizeof(Elf64_Dyn);
    const Elf64_Dyn *entries = part(found->p_offset, n, sizeof *entries);
    for (size_t i = 0; i < n && entries[i].d_tag != DT_NULL; i++) {
        if (entries[i].d_tag == tag) {
            return entries[i].d_un.d_val;
        }
    }
    return absent;
}

/* The string at `at` of the names of the dynamic section. */
static const char *dynamic_name(uint64_t at)
{
    const Elf64_Shdr *names = section(".dynstr");
    assert_non_null(names);
    return part(names->sh_offset + at, 1, 1);
}

static bool imports(const char *name)
{
    const Elf64_Shdr *table = section(".dynsym");
    assert_non_null(table);
    size_t n = table->sh_size / sizeof(Elf64_Sym);
    const Elf64_Sym *symbols = part(table->sh_offset, n, sizeof *symbols);
    for (size_t i = 0; i < n; i++) {
        if (symbols[i].st_shndx == SHN_UNDEF &&
            strcmp(dynamic_name(symbols[i].st_name), name) == 0) {
            return true;
        }
    }
    return false;
}

static void skip_if_sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__)
    print_message("skipped: built with sanitizers, without these options\n");
    skip();
#endif
}

static void the_program_is_position_independent(void **state)
{
    (void)state;
    assert_int_equal(elf.header->e_type, ET_DYN);
    assert_true(dynamic(DT_FLAGS_1, 0) & DF_1_PIE);
    assert_int_equal(dynamic(DT_TEXTREL, 0), 0);
    assert_false(dynamic(DT_FLAGS, 0) & DF_TEXTREL);
}

static void all_relocations_are_done_at_start_and_then_read_only(void **state)
{
    (void)state;
    skip_if_sanitized();
    assert_non_null(segment(PT_GNU_RELRO));
    assert_true(dynamic(DT_FLAGS, 0) & DF_BIND_NOW);
    assert_true(dynamic(DT_FLAGS_1, 0) & DF_1_NOW);
}

static void no_memory_is_both_writable_and_executable(void **state)
{
    (void)state;
    const Elf64_Phdr *stack = segment(PT_GNU_STACK);
    assert_non_null(stack);
    assert_false(stack->p_flags & PF_X);
    for (int i = 0; i < elf.header->e_phnum; i++) {
        assert_false((elf.segments[i].p_flags & PF_W) && (elf.segments[i].p_flags & PF_X));
    }
}

static void libraries_come_from_the_system_alone(void **state)
{
    (void)state;
    assert_int_equal(dynamic(DT_RPATH, 0), 0);
    uint64_t at = dynamic(DT_RUNPATH, 0);
    for (const char *path = at ? dynamic_name(at) : ""; *path;) {
        size_t n = strcspn(path, ":");
        if (strncmp(path, "/usr/lib/", 9) != 0) {
            fail_msg("libraries are looked for in \"%.*s\"", (int)n, path);
        }
        path += n + (path[n] == ':');
    }
}

static void the_stack_and_the_buffers_of_the_c_library_are_checked(void **state)
{
    (void)state;
    skip_if_sanitized();
    assert_true(imports("__stack_chk_fail"));
    assert_true(imports("__snprintf_chk"));
    assert_true(imports("__read_chk")); /* into memory whose size is known when it runs: level 3 */
    assert_false(imports("gets"));
}

/* gcc notes the options of each source in .debug_str, equal ones once: those of cmake/harden.cmake,
 * the same without two of them for the files that it names, and none for the kernels. */
static void every_source_but_the_kernels_is_compiled_with_the_options(void **state)
{
    (void)state;
    skip_if_sanitized();
    static const char *const options[] = {
        "-fstack-protector-strong",
        "-fno-delete-null-pointer-checks",
        "-fno-strict-overflow",
        "-fno-strict-aliasing",
        "-fPIE",
#if defined(__x86_64__)
        "-fcf-protection=full",
#elif defined(__aarch64__)
        "-mbranch-protection=standard",
#endif
    };
    const Elf64_Shdr *strings = section(".debug_str");
    if (!strings || strings->sh_flags & SHF_COMPRESSED) {
        print_message("skipped: no debug information to read the options in\n");
        skip();
    }
    const char *string = part(strings->sh_offset, strings->sh_size, 1);
    const char *end = string + strings->sh_size;
    int n_hardened = 0, n_scratch = 0, n_plain = 0;
    for (; string < end; string += strlen(string) + 1) {
        if (strncmp(string, "GNU C", 5) != 0) {
            continue;
        }
        if (!strstr(string, options[0])) {
            n_plain++;
            continue;
        }
        for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
            if (!strstr(string, options[i])) {
                fail_msg("no %s: %s", options[i], string);
            }
        }
        if (strstr(string, "-ftrivial-auto-var-init=uninitialized")) {
            n_scratch++;
        } else if (strstr(string, "-ftrivial-auto-var-init=zero") &&
                   strstr(string, "-fstack-clash-protection")) {
            n_hardened++;
        } else {
            fail_msg("stack or variables as they come: %s", string);
        }
    }
    assert_int_equal(n_hardened, 1);
    assert_int_equal(n_scratch, 1);
    assert_in_range(n_plain, 1, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_program_is_position_independent),
        cmocka_unit_test(all_relocations_are_done_at_start_and_then_read_only),
        cmocka_unit_test(no_memory_is_both_writable_and_executable),
        cmocka_unit_test(libraries_come_from_the_system_alone),
        cmocka_unit_test(the_stack_and_the_buffers_of_the_c_library_are_checked),
        cmocka_unit_test(every_source_but_the_kernels_is_compiled_with_the_options),
    };
    return cmocka_run_group_tests(tests, read_program, free_program);
}
