/* cli/sandbox: in a process that entered it, reading goes on and everything else is denied. */
#include "cli/sandbox.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <sys/socket.h>
#include <sys/wait.h>

static char folder[] = "/tmp/tinylora-sandbox-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return !mkdtemp(folder) || chdir(folder) || directory_make("model", NULL) ||
           directory_make("outside", NULL) || file_write("model/config.json", "{}", 2, NULL) ||
           file_write("outside/secret", "s", 1, NULL) ||
           file_write("outside/tokenizer.json", "{}", 2, NULL) ||
           symlink("../outside/tokenizer.json", "model/tokenizer.json");
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return chdir("/") || system(command);
}

static Sandbox sandbox;

/* What attempt() gives in a process confined to the folder model. */
static int confined(int (*attempt)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        Error error;
        if (sandbox_for_model(&sandbox, "model", &error) != STATUS_OK) {
            fprintf(stderr, "%s\n", error.message);
            _exit(99);
        }
        _exit(attempt());
    }
    int ended = 0;
    assert_int_equal(waitpid(pid, &ended, 0), pid);
    assert_true(WIFEXITED(ended));
    return WEXITSTATUS(ended);
}

static int try_open(const char *path, int flags)
{
    return open(path, flags, 0600) >= 0 ? 0 : errno;
}

static int to_read_inside(void)
{
    return try_open("model/config.json", O_RDONLY);
}
static int to_read_by_a_link_of_the_model(void)
{
    return try_open("model/tokenizer.json", O_RDONLY);
}
static int to_read_outside(void)
{
    return try_open("outside/secret", O_RDONLY);
}
static int to_write_inside(void)
{
    return try_open("model/config.json", O_WRONLY);
}
static int to_make_inside(void)
{
    return try_open("model/new", O_WRONLY | O_CREAT);
}
static int to_make_outside(void)
{
    return try_open("outside/new", O_WRONLY | O_CREAT);
}
static int to_remove(void)
{
    return unlink("model/config.json") == 0 ? 0 : errno;
}
static int to_open_a_socket(void)
{
    return socket(AF_INET, SOCK_DGRAM, 0) >= 0 ? 0 : errno;
}
static int to_start_a_program(void)
{
    execl("/bin/true", "true", (char *)NULL);
    return errno;
}
static int to_open_a_hundred_files(void)
{
    for (int i = 0; i < 100; i++) {
        int code = try_open("model/config.json", O_RDONLY);
        if (code) {
            return code;
        }
    }
    return 0;
}
static int to_take_all_memory(void)
{
    void *volatile block = malloc(SANDBOX_BYTES + 1);
    return block ? 0 : errno;
}
static int to_gain_privileges(void)
{
    return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? EPERM : 0;
}
static int to_dump_core(void)
{
    struct rlimit now;
    return getrlimit(RLIMIT_CORE, &now) == 0 && now.rlim_max == 0 ? EPERM : 0;
}

static int what_there_is(void)
{
    return (sandbox.landlock > 0 ? 1 : 0) + (sandbox.seccomp ? 2 : 0);
}

static void what_is_not_needed_is_denied(void **state)
{
    (void)state;
    int there = confined(what_there_is);
    assert_int_equal(confined(to_read_inside), 0);
    assert_int_equal(confined(to_read_by_a_link_of_the_model), 0);
    assert_int_equal(confined(to_open_a_hundred_files), EMFILE);
    assert_int_equal(confined(to_gain_privileges), EPERM);
    assert_int_equal(confined(to_dump_core), EPERM);
    if (!SANITIZED) {
        assert_int_equal(confined(to_take_all_memory), ENOMEM);
    }
    if (there & 1) {
        assert_int_equal(confined(to_read_outside), EACCES);
        assert_int_equal(confined(to_write_inside), EACCES);
        assert_int_equal(confined(to_make_inside), EACCES);
        assert_int_equal(confined(to_make_outside), EACCES);
        assert_int_equal(confined(to_remove), EACCES);
    } else {
        print_message("this kernel has no Landlock\n");
    }
    if (there & 2) {
        assert_int_equal(confined(to_open_a_socket), EACCES);
        assert_int_equal(confined(to_start_a_program), EACCES);
    } else {
        print_message("this kernel has no seccomp\n");
    }
    /* And without a sandbox none of this is. */
    assert_int_equal(try_open("outside/secret", O_RDONLY), 0);
    assert_true(socket(AF_INET, SOCK_DGRAM, 0) >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_needed_is_denied),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
